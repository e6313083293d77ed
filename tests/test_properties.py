"""Properties of all that takes samples x, searched by hypothesis: any scale, rank, type, layout.

100 seeded examples each. More of them, new ones: HYPOTHESIS_EXAMPLES=2000.
"""

import functools
import os
import re

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, assume, given, settings

import ntk_utils as ntk
from ntk_utils import Network

N_EXAMPLES = os.environ.get("HYPOTHESIS_EXAMPLES")
# no shrinking: new shapes compile
search = settings(
    max_examples=int(N_EXAMPLES or 100),
    derandomize=N_EXAMPLES is None,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
)
KEY = jax.random.key(0)
N_LARGEST, D_LARGEST = 5, 4


@pytest.fixture(autouse=True, scope="module")
def _without_type_checks():
    """As users call the functions: outside of these tests the type hints are not checked."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@functools.cache
def weights(d, hidden=(6, 3)):
    return ntk.init_params(Network((d, *hidden, 1), "he"), KEY)


# --- samples --------------------------------------------------------------------------------------

SIZES = st.one_of(st.just(1.0), st.integers(-150, 150).map(lambda e: 10.0**e))
RANKS = {
    "any": lambda x: x,
    "repeated": lambda x: np.vstack([x, x[:1]]),
    "parallel": lambda x: np.vstack([x, 3 * x[:1]]),
    "opposite": lambda x: np.vstack([x, -x[:1]]),
    "nearly parallel": lambda x: np.vstack([x, x[:1] * (1 + 1e-9) + 1e-9 * x[-1:]]),
    "rank 1": lambda x: np.arange(1.0, len(x) + 1)[:, None] * x[:1],
    "a row of 0": lambda x: np.vstack([x, 0 * x[:1]]),
}
LAYOUTS = {
    "C": lambda x: x.copy(),
    "Fortran": lambda x: x.copy(order="F"),
    "strided": lambda x: np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3],
    "backwards": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "JAX": jnp.asarray,
    "DataFrame": pd.DataFrame,
    "lists": lambda x: x.tolist(),
    "masked, without masks": np.ma.masked_array,
}
TYPES = [np.float16, np.float32, jnp.bfloat16, np.int8, np.int64, np.uint16, bool, np.float64]


@st.composite
def of_size_1(draw, n_least=1):
    """Samples of entries of size 1, no row 0, as float64."""
    shape = draw(st.tuples(st.integers(n_least, N_LARGEST), st.integers(1, D_LARGEST)))
    entries = st.integers(-9, 9) | st.floats(-1, 1, width=16, allow_subnormal=False)
    x = draw(hnp.arrays(np.float64, shape, elements=entries))
    assume(np.abs(x).max(axis=1).all())
    return RANKS[draw(st.sampled_from(list(RANKS)))](x)


@st.composite
def samples(draw, n_least=1):
    """Samples of any scale: one for all rows, or one for each."""
    x = draw(of_size_1(n_least))
    if draw(st.booleans()):
        return x * draw(SIZES)
    return x * np.array([[draw(SIZES)] for _ in x])


@st.composite
def in_disguise(draw):
    """The same samples in any type and layout, and as a plain array of float64."""
    kind = draw(st.sampled_from(TYPES))
    x = draw(of_size_1(2) if kind is not np.float64 else samples(2))
    layout = draw(st.sampled_from(list(LAYOUTS)))
    with np.errstate(all="ignore"):
        x = np.abs(x).astype(kind) if kind is np.uint16 else x.astype(kind)
    assume(not (kind is jnp.bfloat16 and layout == "lists"))  # of a type that NumPy cannot guess
    return LAYOUTS[layout](x), np.array(x, dtype=np.float64)


def network(d):
    return Network((d, 6, 3, 1))


# of samples x in d dimensions
ON_SAMPLES = {
    "limiting_ntk": lambda x, _: ntk.limiting_ntk(x, depth=3),
    "limiting_layer_ntks": lambda x, _: ntk.limiting_layer_ntks(x, depth=3),
    "limiting_layer_shares": lambda x, _: ntk.limiting_layer_shares(x, depth=2),
    "limiting_lower_bound": lambda x, _: ntk.limiting_lower_bound(x, depth=2, exact_orders=2),
    "nguyen21_limiting_lower": lambda x, _: ntk.nguyen21_limiting_lower(x, r=4),
    "limiting_rank_upper_bound": lambda x, _: ntk.limiting_rank_upper_bound(x, depth=2),
    "scaling": lambda x, _: ntk.scaling(x),
    "separation": lambda x, _: ntk.separation(x),
    "khatri_rao_power": lambda x, _: ntk.khatri_rao_power(x, 1),
    "project_mean_out": lambda x, _: ntk.project_mean_out(x),
}
AND_A_NETWORK = {
    "wide_layer_ntks": (),
    "mean_layer_diagonals": (),
    "mean_kernel_diagonal": (),
    "nguyen21_lambda_min_lower": (),
    "mean_feature_norms_squared": (2,),
    "mean_feature_gram": (1,),
    "mean_feature_gram_lower_bound": (1,),
    "nguyen21_mean_feature_gram_lower": (1,),
}
AND_WEIGHTS = (
    "apply",
    "feature_matrices",
    "backward_matrices",
    "empirical_ntk",
    "layer_ntks",
    "sandwich",
    "schur_terms",
    "schur_lower_bound",
    "layer_shares",
    "ntk_diagonal",
)


def result(name, x, d):
    if name in ON_SAMPLES:
        return ON_SAMPLES[name](x, d)
    if name in AND_A_NETWORK:
        return getattr(ntk, name)(network(d), x, *AND_A_NETWORK[name])
    return getattr(ntk, name)(weights(d), x)


FUNCTIONS = [*ON_SAMPLES, *AND_A_NETWORK, *AND_WEIGHTS]
BUT_FOR_ROWS_OF_0 = {"separation"}  # refused
DEGREE_2 = {
    name for name in FUNCTIONS if re.search("ntk|bound|mean|diagonal|terms|lower|sandwich", name)
} - {"project_mean_out", "nguyen21_lambda_min_lower"}  # of degree 1, and for norms of about √d


def assert_same(found, expected):
    leaves, other = jax.tree.leaves(found), jax.tree.leaves(expected)
    assert len(leaves) == len(other)
    for a, b in zip(leaves, other, strict=True):
        np.testing.assert_array_equal(a, b)


# --- the properties -------------------------------------------------------------------------------


@search
@given(samples(), st.integers(0, 2**31 - 1), st.sampled_from([(4,), (9,), (6, 3), (2, 8)]))
def test_lambda_min_lies_between_its_certificates_up_to_rounding(x, seed, hidden):
    params = ntk.init_params(Network((x.shape[1], *hidden, 1), "he"), jax.random.key(seed))
    found = ntk.sandwich(params, x)
    assert np.isfinite(found[:4]).all()
    assert 0 <= found.lower <= found.lambda_min + found.rounding
    assert found.lambda_min <= found.upper + found.rounding


@search
@given(samples(), st.integers(1, 4))
def test_the_eigenvalue_of_the_limit_lies_between_its_certificates_up_to_rounding(x, depth):
    k = ntk.limiting_layer_ntks(x, depth=depth).sum(axis=0)  # which compiles nothing
    lambda_min, rounding = ntk.smallest_eigenvalue(k), 4 * ntk.rounding_error(k)
    assert np.isfinite(lambda_min)
    for exact_orders in (0, 3):
        lower = ntk.limiting_lower_bound(x, depth=depth, exact_orders=exact_orders)
        assert 0 <= lower <= lambda_min + rounding
    assert lambda_min <= ntk.limiting_rank_upper_bound(x, depth=depth) + rounding
    if depth > 1:
        assert 0 <= ntk.nguyen21_limiting_lower(x, r=2) <= lambda_min + rounding


@search
@given(in_disguise(), st.sampled_from(FUNCTIONS))
def test_samples_of_any_type_and_layout_give_the_result_of_their_float64_copy(x, name):
    disguised, copy = x
    assume(name not in BUT_FOR_ROWS_OF_0 or np.abs(copy).max(axis=1).all())
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        assert_same(result(name, disguised, copy.shape[1]), result(name, copy, copy.shape[1]))


@search
@given(of_size_1(2), st.integers(-400, 400), st.sampled_from(sorted(DEGREE_2)))
def test_a_power_of_two_in_the_samples_comes_out_squared_exactly(x, exponent, name):
    scaled, expected = (result(name, np.ldexp(x, e), x.shape[1]) for e in (exponent, 0))
    if name == "sandwich":
        scaled, expected = scaled[:4], expected[:4]
    assert_same(scaled, jax.tree.map(lambda a: a * 2.0 ** (2 * exponent), expected))


# --- what is no samples ---------------------------------------------------------------------------


class Pretender:
    """Something that says it is an array, and is none."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("no array after all")


NUMBER = st.sampled_from([0, 1.5, -3, True, 1e200, -1e300, 1e-320, np.nan, np.inf, -np.inf])
ODD = st.sampled_from(
    [None, "x", "", b"x", 1j, object(), Pretender(), 10**400, {}, set(), slice(1)]
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
JUNK = st.one_of(
    NUMBER,
    ODD,
    st.recursive(NUMBER | ODD, lambda inner: st.lists(inner, max_size=4), max_leaves=9),
    hnp.arrays(
        st.sampled_from(
            [np.float64, np.float32, np.complex128, np.int64, bool, object, "U2", "M8[D]"]
        ),
        SHAPES,
    ),
    hnp.arrays(np.float64, SHAPES, elements=NUMBER.map(float)),
    hnp.arrays(np.float64, (3, 2), elements=NUMBER.map(float)).map(np.ma.masked_invalid),
    hnp.arrays(np.float64, (3, 2), elements=st.floats(-9, 9)).map(np.asmatrix),
    hnp.arrays(object, (3, 2), elements=NUMBER | ODD).map(pd.DataFrame),
    samples().map(pd.DataFrame),
    st.just(KEY),
)
LABELLED = ("least_norm_step", "ntk_solve", "gauss_newton", "gradient_descent", "adam")
OTHERS = {
    "contradictions": lambda x: ntk.contradictions(x, np.ones(3)),
    "ntk_operator": lambda x: ntk.ntk_operator(weights(2), x),
    "feature_jacobian_norms_squared": lambda x: ntk.feature_jacobian_norms_squared(
        weights(2), x, 1
    ),
    "ascend_jacobian_norms": lambda x: ntk.ascend_jacobian_norms(weights(2), x, 1, steps=2),
    "memorizing_network": lambda x: ntk.memorizing_network(weights(2), x, np.arange(3), 0.1),
    "conditioning_report": lambda x: ntk.conditioning_report(x, seeds=[0]),
    "two_layer_gap_coefficients": lambda x: ntk.two_layer_gap_coefficients(x, KEY, n_neurons=10),
    "smallest_eigenvalue": ntk.smallest_eigenvalue,
    "spectrum": ntk.spectrum,
    "smallest_singular_value": ntk.smallest_singular_value,
}
SAYS_WHAT = re.compile(r"^(x|y|f|k|params|epsilon|step_size)(\[\d+\])?: \w")


@search
@given(JUNK, st.sampled_from([*FUNCTIONS, *LABELLED, *OTHERS]))
@pytest.mark.filterwarnings("ignore::ntk_utils.DataWarning")
@pytest.mark.filterwarnings("ignore:ntk_solve:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_what_is_no_samples_is_refused_in_a_sentence_that_begins_with_the_argument(junk, name):
    try:
        with np.errstate(all="ignore"):
            if name in FUNCTIONS:
                result(name, junk, 2)
            elif name in LABELLED:
                getattr(ntk, name)(weights(2), junk, np.ones(3))
            else:
                OTHERS[name](junk)
    except (ValueError, TypeError, NotImplementedError) as error:
        if not SAYS_WHAT.match(str(error)):
            pytest.fail(f"{name}: {error!r}")
