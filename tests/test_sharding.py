"""One kernel on many devices: the numbers stay the same."""

import os
import socket
import subprocess
import sys

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
    small = ntk.init_params(ntk.Network((widths[0], 4, 1)), key_w)  # NumPy would do on one device
    outputs = ntk.apply(small, placed)
    assert len(outputs.sharding.device_set) == n_devices
    assert abs(outputs - ntk.apply(small, x)).max() < 1e-13
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
