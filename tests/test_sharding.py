"""One kernel on many devices: the numbers stay the same."""

import os
import socket
import subprocess
import sys

import jax
import numpy as np

from ntk_utils import _checks

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
    terms, whole = np.asarray(ntk.layer_ntks(params, x)), np.asarray(ntk.empirical_ntk(params, x))
    for axis_type in [AxisType.Explicit] if address else [AxisType.Auto, AxisType.Explicit]:
        rows = NamedSharding(
            jax.make_mesh((n_devices,), ("samples",), axis_types=(axis_type,)), P("samples")
        )
        placed = jax.make_array_from_callback(x.shape, rows, lambda s: x[s])
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


EVERY_FUNCTION = """
import jax, jax.numpy as jnp, numpy as np, ntk_utils as ntk
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

key = jax.random.key(0)
x, y = ntk.uniform_sphere(key, n=16, d=5), np.sign(np.arange(16.0) - 7.5)
network = ntk.Network((5, 40, 1))
p = ntk.init_params(network, key)
functions = [
    lambda x: ntk.empirical_ntk(p, x),
    lambda x: ntk.layer_ntks(p, x),
    lambda x: ntk.apply(p, x),
    lambda x: ntk.feature_matrices(p, x)[1],
    lambda x: ntk.backward_matrices(p, x)[0],
    lambda x: ntk.limiting_ntk(x, depth=2),
    lambda x: ntk.limiting_lower_bound(x, depth=2),
    lambda x: ntk.schur_lower_bound(p, x),
    lambda x: ntk.sandwich(p, x).lambda_min,
    lambda x: ntk.layer_shares(p, x),
    lambda x: ntk.mean_kernel_diagonal(network, x),
    lambda x: ntk.ntk_operator(p, x).mv(y),
    lambda x: ntk.ntk_diagonal(p, x),
    lambda x: ntk.ntk_solve(p, x, y).value,
    lambda x: ntk.gradient_descent(p, x, y, steps=1).losses,
    lambda x: ntk.gauss_newton(p, x, y, steps=1).losses,
    lambda x: ntk.adam(p, x, y, steps=1).losses,
    lambda x: ntk.gradient_flow(p, x, y, [0, 1e-3], activation=jnp.tanh).losses,
    lambda x: ntk.weak_pl_flow(p, x, y, 0.5, activation=jnp.tanh).right,
    lambda x: ntk.memorizing_network(p, x, y, 1e-3)[0],
    lambda x: ntk.feature_jacobian_norms_squared(p, x, 1),
    lambda x: ntk.ascend_jacobian_norms(p, x, 1, steps=2),
    lambda x: ntk.khatri_rao_power(x, 2),
    lambda x: ntk.separation(x),
]
for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((jax.device_count(),), ("samples",), axis_types=(kind,))
    placed = jax.device_put(x, NamedSharding(mesh, P("samples")))
    for i, function in enumerate(functions):
        expected = np.asarray(function(x))
        outside = function(placed)
        with jax.set_mesh(mesh):
            inside, not_placed = function(placed), function(x)
        for found in (outside, inside, not_placed):
            error = abs(np.asarray(found) - expected).max()
            assert error <= 1e-10 * abs(expected).max(), (kind, i, error)
"""


def test_every_function_takes_a_placed_x_on_a_mesh_of_one_device():
    exec(EVERY_FUNCTION, {})


def test_every_function_takes_a_placed_x_on_any_mesh_with_the_result_of_one_device():
    flags = "--xla_force_host_platform_device_count=8"
    subprocess.run(
        [sys.executable, "-c", EVERY_FUNCTION],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        check=True,
        timeout=300,
    )


def test_a_kernel_sharded_over_8_devices_is_that_of_one_device_and_no_device_holds_it_whole():
    succeed(sharded(8))


def test_a_kernel_sharded_over_2_processes_is_that_of_one_process():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    succeed(*[sharded(2, process=i, address=f"127.0.0.1:{port}") for i in (0, 1)])


def test_weights_and_samples_of_double_precision_on_one_device_are_taken_as_they_are():
    x = jax.device_put(np.ones((3, 2)))
    assert _checks.inputs("x", x) is x
    assert _checks.placed_inputs("x", x) is x
    assert _checks.inputs("x", x.astype(np.float32)).dtype == np.float64
