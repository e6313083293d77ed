"""Import, sweeps of small kernels, and the memory of large ones, each in a process of its own."""

IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"

FIRST_KERNEL = """
import time
import jax
import ntk_utils as ntk
start = time.perf_counter()
key_x, key_w = jax.random.split(jax.random.key(0))
params = ntk.init_params(ntk.Network((50, 8000, 50, 1), "he"), key_w)
x = ntk.gaussian(key_x, 1000, 50)
jax.block_until_ready((params, x))
drawn = time.perf_counter()
ntk.empirical_ntk(params, x).block_until_ready()
print(drawn - start, time.perf_counter() - drawn)
"""

SWEEP = """
import time
start = time.perf_counter()
import jax
import ntk_utils as ntk

def measure(n, *, key):
    key_x, key_w = jax.random.split(key)
    params = ntk.init_params(ntk.Network((n // 2, 8 * n, 50, 1), "he"), key_w)
    return ntk.smallest_eigenvalue(ntk.empirical_ntk(params, ntk.gaussian(key_x, n, n // 2)))

ntk.sweep(measure, {"n": range(20, 201, 20)}, range(10), progress=False)
print(time.perf_counter() - start)
"""

WARM_READ = """
import tempfile
import time
import ntk_utils as ntk

def measure(n, *, key):
    return n / 3

with tempfile.TemporaryDirectory() as cache:
    for _ in range(2):
        start = time.perf_counter()
        ntk.sweep(measure, {"n": range(1000)}, [0], cache=cache, progress=False)
        print(time.perf_counter() - start)
"""

LARGE = """
import jax
import ntk_utils as ntk
key_x, key_w = jax.random.split(jax.random.key(0))
params = ntk.init_params(ntk.Network((64, 32000, 64, 1), "he"), key_w)
ntk.empirical_ntk(params, ntk.gaussian(key_x, 4000, 64)).block_until_ready()
"""

MATRIX_FREE = """
import jax
import numpy as np
import ntk_utils as ntk
key_x, key_w = jax.random.split(jax.random.key(0))
params = ntk.init_params(ntk.Network((64, 500, 64, 1), "he"), key_w)
x = ntk.gaussian(key_x, 50_000, 64)
operator = ntk.ntk_operator(params, x)
trace = float(ntk.ntk_diagonal(params, x).sum())
assert trace / 50_000 < ntk.largest_eigenvalue(operator) < trace
assert ntk.trace_of_square(operator, key_x, n_probes=4).value > trace**2 / 50_000
y = operator.mv(jax.random.normal(key_w, (50_000,)))
print(ntk.ntk_solve(params, x, y, tolerance=1e-3, max_steps=100).residual)
"""


def test_import(in_a_new_process, report):
    (both,), (jax,) = (
        min(in_a_new_process(IMPORT.format(module)) for _ in range(5))
        for module in ("jax, ntk_utils", "jax")
    )
    report(
        "import ntk_utils beyond import jax, s", f"{both - jax:.2f}", "<= 0.40", both - jax <= 0.4
    )


def test_first_kernel_of_a_process(in_a_new_process, report):
    drawing, first = map(min, zip(*(in_a_new_process(FIRST_KERNEL) for _ in range(3)), strict=True))
    report("first draw of a network and of samples, s", f"{drawing:.2f}")
    report("first empirical_ntk of a process, s", f"{first:.2f}", "<= 1.0", first <= 1)


def test_sweep(in_a_new_process, report):
    (seconds,) = in_a_new_process(SWEEP)
    report("10 sizes × 10 seeds, N <= 200, s", f"{seconds:.1f}", "<= 15", seconds <= 15)


def test_warm_read(in_a_new_process, report):
    _, seconds = in_a_new_process(WARM_READ)
    report("1,000 points read from a cache, s", f"{seconds:.2f}", "<= 2", seconds <= 2)


def test_memory_of_a_kernel(peak_memory, report):
    (gigabytes,) = peak_memory(LARGE)
    report("peak memory, N = 4000, n_1 = 32000, GB", f"{gigabytes:.2f}", "<= 1.6", gigabytes <= 1.6)


def test_memory_without_the_kernel(peak_memory, report):
    residual, gigabytes = peak_memory(MATRIX_FREE)
    report("peak memory, matrix-free, N = 50 000, GB", f"{gigabytes:.2f}", "<= 8", gigabytes <= 8)
    report("its residual by conjugate gradients", f"{residual:.0e}", "<= 1e-03", residual <= 1e-3)
