"""`make figure2`: whether it keeps all cores busy, and how much of what they can do it takes."""

import multiprocessing
import os
import re
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from ntk_utils import figure2

# the longest curve, from its smallest to its largest point
POINTS = [point for point in figure2.GRID if point["panel"] == "right" and point["d"] == 400][::4]
TRIALS = 4
MAKEFILE = Path(__file__).parents[2] / "Makefile"


def settings():
    """What the Makefile sets for the processes that measure."""
    (line,) = re.findall(r"^MEASURE = (.*) \$\(BIN\)", MAKEFILE.read_text(), re.MULTILINE)
    line = line.replace("$(PLATFORM)", "cpu")
    return dict(setting.split("=", 1) for setting in line.split())


def operations(d, n_samples, n_1, n_2, **_):
    """Of the products of one kernel, where the features of layer 1 are formed twice.

    The half of each symmetric product is not counted: nobody computes it.
    """
    layers = 2 * n_samples * (2 * d * n_1 + 2 * n_1 * n_2)
    return layers + n_samples**2 * (d + 2 * n_1 + 2 * n_2)


def measured(point_and_seed):
    import jax

    point, seed = point_and_seed
    start = time.process_time()
    figure2.trial(**point, key=jax.random.key(seed))
    return time.process_time() - start


def compile_all():
    for point in POINTS:
        measured((point, 0))


def rate(_):
    """Operations a second of one large product, while the other processes do the same."""
    a = np.random.default_rng(0).normal(size=(3000, 3000))
    a @ a
    start = time.perf_counter()
    for _ in range(4):
        a @ a
    return 4 * 2 * 3000**3 / (time.perf_counter() - start)


def test_cores_are_busy_with_products(report, monkeypatch):
    for name, value in settings().items():
        monkeypatch.setenv(name, value)
    n_cores = os.cpu_count()
    work = [(point, seed) for point in POINTS for seed in range(TRIALS)]
    spawn = multiprocessing.get_context("spawn")
    # with 50 trials a point, what a process compiles for each new shape counts for little
    with ProcessPoolExecutor(n_cores, mp_context=spawn, initializer=compile_all) as executor:
        rates = [sum(executor.map(rate, range(n_cores)))]
        start = time.perf_counter()
        busy = sum(executor.map(measured, work))
        seconds = time.perf_counter() - start
        rates.append(sum(executor.map(rate, range(n_cores))))
    share = busy / n_cores / seconds
    report(
        "make figure2: share of its time that cores are busy",
        f"{share:.0%}",
        ">= 85%",
        share >= 0.85,
    )
    share = TRIALS * sum(operations(**point) for point in POINTS) / seconds / np.mean(rates)
    report(
        "make figure2 / plain products on all cores, rates", f"{share:.0%}", ">= 85%", share >= 0.85
    )
