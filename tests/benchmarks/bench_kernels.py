"""The empirical NTK against the matrix products it is made of, and against neural-tangents.

Ratios of the smallest times of one run: the machines are noisy, their noise only adds time.
"""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from ntk_utils import Network, as_stax, empirical_ntk, empirical_ntk_fn, gaussian, init_params

N_SAMPLES, WIDTHS = 1000, (50, 8000, 50, 1)


@pytest.fixture(scope="module")
def problem():
    key_x, key_w = jax.random.split(jax.random.key(0))
    x = gaussian(key_x, N_SAMPLES, WIDTHS[0])
    return init_params(Network(WIDTHS, "he"), key_w), x


@pytest.fixture(scope="module")
def seconds():
    return {}


@jax.jit
def chain_of_products(params, x):
    """The matrix products of the kernel for L = 3, written out, and nothing else."""
    w_1, w_2, w_3 = params
    f_1 = jnp.maximum(x @ w_1, 0)
    f_2 = jnp.maximum(f_1 @ w_2, 0)
    b_2 = (f_2 > 0) * w_3.T
    b_1 = (f_1 > 0) * (b_2 @ w_2.T)
    return x @ x.T, b_1 @ b_1.T, f_1 @ f_1.T, b_2 @ b_2.T, f_2 @ f_2.T


def smallest_time(benchmark, function, *arguments, rounds):
    benchmark.pedantic(
        lambda: jax.block_until_ready(function(*arguments)), rounds=rounds, warmup_rounds=1
    )
    return benchmark.stats.stats.min


def test_chain_of_products(benchmark, problem, seconds):
    seconds["chain"] = smallest_time(benchmark, chain_of_products, *problem, rounds=15)


def test_empirical_ntk(benchmark, problem, seconds, report):
    seconds["ntk"] = smallest_time(benchmark, empirical_ntk, *problem, rounds=15)
    ratio = seconds["ntk"] / seconds["chain"]
    report("empirical_ntk / chain of matrix products", f"{ratio:.2f}", "<= 1.10", ratio <= 1.1)


def test_neural_tangents_jacobian_contraction(benchmark, problem, seconds, report):
    params, x = problem
    _, apply_fn, _ = as_stax(Network(WIDTHS, "he"))
    stax_params = [layer for w in params for layer in ((w, None), ())][:-1]
    ntk = empirical_ntk_fn(apply_fn)
    seconds["nt"] = smallest_time(benchmark, ntk, stax_params, x, rounds=1)
    ratio = seconds["nt"] / seconds["ntk"]
    report("JACOBIAN_CONTRACTION / empirical_ntk", f"{ratio:.0f}", ">= 40", ratio >= 40)


def test_import(report):
    def import_time(module):
        code = (
            f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
        )
        runs = [subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(5)]
        return min(map(float, runs))

    extra = import_time("jax, ntk_utils") - import_time("jax")
    report(
        "import ntk_utils beyond import jax, in seconds", f"{extra:.2f}", "<= 0.40", extra <= 0.4
    )
