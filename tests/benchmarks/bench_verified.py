"""The proved enclosure of λ_min: its time against the measured value, its width and its memory."""

import time

import jax

from ntk_utils import (
    Network,
    empirical_ntk,
    gaussian,
    init_params,
    smallest_eigenvalue,
    verified_bounds,
)

ALL_DIGITS = """
import jax
from ntk_utils import Network, digits, init_params, verified_bounds

params = init_params(Network((64, 4000, 64, 1), "he"), jax.random.key(0))
lower, upper = verified_bounds(params, digits(1797))
print(upper / lower - 1)
"""


def measured(params, x):
    return smallest_eigenvalue(empirical_ntk(params, x))


def test_time_against_the_measured_value(benchmark, report):
    key_x, key_w = jax.random.split(jax.random.key(0))
    params = init_params(Network((50, 8000, 50, 1), "he"), key_w)
    x = gaussian(key_x, 1000, 50)
    seconds = {}
    for function in (measured, verified_bounds):
        times = []
        for _ in range(6):
            start = time.perf_counter()
            function(params, x)
            times.append(time.perf_counter() - start)
        seconds[function] = min(times[1:])
    benchmark.pedantic(lambda: None)
    ratio = seconds[verified_bounds] / seconds[measured]
    report("verified_bounds / measuring λ_min, N = 1000", f"{ratio:.2f}", "<= 3", ratio <= 3)


def test_width_and_memory_for_all_digits(benchmark, report, peak_memory):
    width, gigabytes = peak_memory(ALL_DIGITS)
    benchmark.pedantic(lambda: None)
    report("relative width of the enclosure, all digits", f"{width:.1e}", "<= 1e-6", width <= 1e-6)
    report("its peak memory, GB", f"{gigabytes:.2f}", "<= 2.5", gigabytes <= 2.5)
