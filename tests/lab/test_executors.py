"""One sweep on many threads or processes: the table stays the same."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import jax
import pandas as pd
import pytest

from ntk_utils import Network, empirical_ntk, gaussian, init_params, smallest_eigenvalue, sweep

OFFSET = 3.0


@jax.jit
def shifted(value):
    return value + OFFSET


def measure(n, key):
    """Refers to this module's jitted function, its constant and to ntk_utils."""
    x = gaussian(key, n, 4)
    k = empirical_ntk(init_params(Network((4, 6, 1)), key), x)
    return {"lambda_min": smallest_eigenvalue(k), "shifted": shifted(x[0, 0])}


GRID = {"n": [3, 4, 5]}


@pytest.fixture(scope="module")
def alone():
    return sweep(measure, GRID, range(3), progress=False)


@pytest.fixture(scope="module")
def spawned():
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        yield executor


def test_threads_measure_the_same_table(alone):
    with ThreadPoolExecutor(2) as executor:
        table = sweep(measure, GRID, range(3), executor=executor, progress=False)
    pd.testing.assert_frame_equal(table, alone, check_exact=True)


def test_threads_share_what_the_measure_refers_to():
    seen = []
    with ThreadPoolExecutor(2) as executor:
        sweep(
            lambda n, key: seen.append(n) or 0.0,  # noqa: ARG005
            GRID,
            [0],
            executor=executor,
            progress=False,
        )
    assert sorted(seen) == [3, 4, 5]


def test_spawned_processes_measure_the_same_table(alone, spawned):
    table = sweep(measure, GRID, range(3), executor=spawned, progress=False)
    pd.testing.assert_frame_equal(table, alone, check_exact=True)


def test_processes_take_functions_that_pickle_refuses_as_a_notebook_defines_them(spawned):
    offset = 10
    table = sweep(
        lambda n, key: n + offset,  # noqa: ARG005
        GRID,
        [0],
        executor=spawned,
        progress=False,
    )
    assert table["value"].tolist() == [13.0, 14.0, 15.0]


def test_what_cannot_be_sent_to_a_process_is_refused_before_anything_is_measured(spawned):
    generator = (i for i in range(3))
    with pytest.raises(TypeError, match="measure: expected a function that can be sent"):
        sweep(lambda n, key: next(generator), GRID, [0], executor=spawned)  # noqa: ARG005


def test_an_error_in_a_process_reaches_the_caller_and_names_its_point(spawned):
    with pytest.raises(ZeroDivisionError) as error:
        sweep(
            lambda n, key: 1 / (n - 4),  # noqa: ARG005
            GRID,
            [7],
            executor=spawned,
            progress=False,
        )
    assert error.value.__notes__ == ["sweep: this was at {'n': 4}, seed 7"]


def test_a_dask_cluster_measures_the_same_table(alone):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        table = sweep(measure, GRID, range(3), executor=client.get_executor(), progress=False)
    pd.testing.assert_frame_equal(table, alone, check_exact=True)
