"""A round of quantized descent: what messages of few bits cost in time, beside exact ones."""

import time

import jax
import numpy as np
import pytest

from ntk_utils.quantization import optimizers, problems
from ntk_utils.quantization.messages import QSGD, Exact, Lattice

ROUNDS = 300


@pytest.mark.parametrize("d", [20, 1000])
@pytest.mark.parametrize("quantizer", [Lattice(), QSGD(8)], ids=["Lattice", "QSGD"])
def test_a_round(d, quantizer, report):
    problem = problems.least_squares(jax.random.key(0), np.ones(d), 4, samples=2 * d)
    times = {}
    for vectors in 3 * (quantizer, Exact()):  # in turns: what else the machine does meets both
        start = time.perf_counter()
        optimizers.gradient_descent(
            problem, step_size=0.01, rounds=ROUNDS, vectors=vectors, key=jax.random.key(0)
        )
        times.setdefault(vectors, []).append(time.perf_counter() - start)
    ratio = min(times[quantizer]) / min(times[Exact()])
    name = type(quantizer).__name__
    report(f"a round with {name} / with Exact, d = {d}", f"{ratio:.1f}", "<= 5", ratio <= 5)
