"""Figure 2 of Nguyen, Mondelli, Montúfar (ICML 2021, arXiv:2012.11654v5), measured again.

    make figure2              # 50 trials a point, as published: hours on two cores
    make figure2 TRIALS=2     # fewer

Stopped at any moment and started again, it goes on where it was. Both panels have L = 3 and show
the mean over 50 networks: on the right λ_min(K̄) under He initialisation against N, with n_1 = 8N
and d, n_2 fixed; on the left λ_min(4 K̄/(n_1 n_2)) for weights of variance 1 against d. The law of
the data is not published; standard Gaussian samples are inferred, because they meet the published
points. For comparison, one curve has samples on the sphere of radius √d.
"""

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax

from ntk_utils.data import gaussian, uniform_sphere
from ntk_utils.kernels import empirical_ntk
from ntk_utils.lab.sweep import sweep
from ntk_utils.networks import Network, init_params
from ntk_utils.spectra import smallest_eigenvalue

SIZES = range(400, 2001, 100)
_RIGHT = [(400, 400), (800, 400), (800, 800)]
_LEFT = [(1000, 2000, 2000), (1000, 4000, 4000), (500, 2000, 2000)]
_POINT = ["panel", "d", "n_samples", "n_1", "n_2"]

GRID = [
    dict(zip(_POINT, point, strict=True))
    for point in (
        *(("right", d, n, 8 * n, n_2) for d, n_2 in _RIGHT for n in SIZES),
        *(("left", d, *rest) for rest in _LEFT for d in SIZES),
        *(("right, sphere", 400, n, 8 * n, 400) for n in (400, 1000, 2000)),
    )
]
"""Every point of both panels, and three of the first curve on the right with other samples."""


def trial(panel: str, d: int, n_samples: int, n_1: int, n_2: int, *, key) -> float:
    """Draw samples and a network for one point of Figure 2, and return its λ_min, as plotted.

    Args:
      panel: "right", "left" or "right, sphere".
      d: dimension of the samples.
      n_samples: their number N.
      n_1: width of the first hidden layer.
      n_2: width of the second.
      key: a random key of JAX.

    Returns: λ_min(K̄) on the right, λ_min(4 K̄/(n_1 n_2)) on the left.
    """
    key_x, key_w = jax.random.split(key)
    x = (uniform_sphere if panel == "right, sphere" else gaussian)(key_x, n_samples, d)
    network = Network((d, n_1, n_2, 1), (1.0, 1.0, 1.0) if panel == "left" else "he")
    lambda_min = smallest_eigenvalue(empirical_ntk(init_params(network, key_w), x))
    return 4 / (n_1 * n_2) * lambda_min if panel == "left" else lambda_min


def main() -> None:
    """Measure what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=50, help="networks a point (default: 50)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--cache", default="build/figure2", help="folder of finished trials")
    parser.add_argument("--out", type=Path, default="notebooks/data/figure2.csv", help="the table")
    arguments = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, mp_context=spawn) as executor:
        seeds = range(arguments.trials)
        drawn = sweep(trial, GRID, seeds, executor=executor, cache=arguments.cache)
    of_point = drawn.groupby(_POINT, sort=False)["value"]
    table = of_point.agg(mean="mean", sd="std", trials="count").reset_index()
    table.to_csv(arguments.out, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
