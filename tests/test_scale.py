"""One kernel on many devices, one sweep on many processes: the numbers stay the same."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import jax
import pandas as pd
import pytest

from ntk_utils import Network, empirical_ntk, gaussian, init_params, smallest_eigenvalue, sweep

SHARDED = """
import sys
import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

# the wide layer of the first network streams; two processes do less of the same
n_devices, process, address = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if address:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, num_processes=2, process_id=process)
import ntk_utils as ntk

assert len(jax.devices()) == n_devices
for widths in [(3, 33000, 2, 1)] if address else [(3, 33000, 2, 1), (5, 40, 8, 1)]:
    key_x, key_w = jax.random.split(jax.random.key(0))
    x = np.asarray(ntk.gaussian(key_x, 160, widths[0]))
    network = ntk.Network(widths, "he")
    params = ntk.init_params(network, key_w)
    mean = np.asarray(ntk.mean_kernel_diagonal(network, x))
    terms, whole = np.asarray(ntk.layer_ntks(params, x)), np.asarray(ntk.empirical_ntk(params, x))
    for axis_type in [AxisType.Explicit] if address else [AxisType.Auto, AxisType.Explicit]:
        rows = NamedSharding(
            jax.make_mesh((n_devices,), ("samples",), axis_types=(axis_type,)), P("samples")
        )
        placed = jax.make_array_from_callback(x.shape, rows, lambda s: x[s])
        for shard in ntk.mean_kernel_diagonal(network, placed).addressable_shards:
            assert np.allclose(shard.data, mean[shard.index], rtol=1e-13)
        k = ntk.empirical_ntk(params, placed)
        for one_device, sharded in (whole, k), (terms, ntk.layer_ntks(params, placed)):
            for shard in sharded.addressable_shards:
                assert shard.data.shape[-2:] == (160 // n_devices, 160), shard.data.shape
                error = abs(np.asarray(shard.data) - one_device[shard.index]).max()
                assert error <= 1e-14 * abs(whole).max(), error
if not address:
    assert abs(ntk.smallest_eigenvalue(k) - ntk.smallest_eigenvalue(whole)) < 1e-13 * whole.max()
try:
    ntk.empirical_ntk(params, jax.make_array_from_callback(x.shape, rows, lambda s: x[s] * np.nan))
    raise SystemExit("nan went through")
except ValueError as error:
    assert "x: expected finite entries" in str(error), error
"""


def sharded(n_devices, process=0, address=""):
    """Start a process with as many virtual devices of its own as it needs."""
    per_process = n_devices // 2 if address else n_devices
    flags = f"--xla_force_host_platform_device_count={per_process}"
    return subprocess.Popen(
        [sys.executable, "-c", SHARDED, str(n_devices), str(process), address],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def succeed(*processes):
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(outputs)


def test_a_kernel_sharded_over_8_devices_is_that_of_one_device_and_no_device_holds_it_whole():
    succeed(sharded(8))


def test_a_kernel_sharded_over_2_processes_is_that_of_one_process():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    succeed(*[sharded(2, process=i, address=f"127.0.0.1:{port}") for i in (0, 1)])


# --- executors ------------------------------------------------------------------------------------

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
