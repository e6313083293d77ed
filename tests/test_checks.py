"""What the door accepts; `test_bad_input` has what it refuses."""

import jax
import numpy as np
import pandas as pd
import pytest

from ntk_utils import (
    Network,
    conditioning_report,
    empirical_ntk,
    init_params,
    separation,
    smallest_eigenvalue,
)

X = np.random.default_rng(0).normal(size=(6, 4))


class Tensor:
    """As one of torch: `__array__`, and a dtype that NumPy does not know."""

    def __init__(self, array):
        self.array, self.dtype = np.asarray(array), "torch.float64"

    def __array__(self, dtype=None, copy=None):
        return self.array


class OnlyArray:
    def __init__(self, array):
        self.array = np.asarray(array)

    def __array__(self, dtype=None, copy=None):
        return self.array


KINDS = {
    "a list of lists": lambda a: np.asarray(a).tolist(),
    "a list of rows": list,
    "a data frame": pd.DataFrame,
    "a data frame of nullable numbers": lambda a: pd.DataFrame(np.asarray(a)).convert_dtypes(),
    "a data frame of numbers as objects": lambda a: pd.DataFrame(np.asarray(a), dtype=object),
    "a tensor": Tensor,
    "something with __array__ alone": OnlyArray,
}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_an_array_is_taken_for_one(kind):
    make = KINDS[kind]
    params = init_params(Network((4, 9, 1)), jax.random.key(0))
    k = np.asarray(empirical_ntk(params, X))
    np.testing.assert_array_equal(empirical_ntk(tuple(map(make, params)), make(X)), k)
    assert smallest_eigenvalue(make(k)) == smallest_eigenvalue(k)
    assert separation(make(X)) == separation(X)
    found, expected = (conditioning_report(x, seeds=[0]).table for x in (make(X), X))
    pd.testing.assert_frame_equal(found, expected)


def test_columns_of_flags_and_of_numbers_are_one_array():
    frame = pd.DataFrame({"a": [1.5, 2.0, -1.0], "b": [True, False, True]})
    assert separation(frame) == separation([[1.5, 1], [2, 0], [-1, 1]])
