"""Figures 1 and 2 of Bombari, Amani, Mondelli (NeurIPS 2022, arXiv:2205.10217), measured again.

    make bombari22            # 10 trials a point, as published: hours on two cores
    make bombari22 TRIALS=2   # fewer

Stopped at any moment and started again, it goes on where it was. All hidden layers are as wide as
the samples, d = n_1 = … = n_{L-1}, entries of W_l have variance 1/d for l < L and 1 for W_L, and
samples are standard Gaussian. Figure 1 shows λ_min(K̄) of L = 3 sigmoid layers against d². Figure 2
shows the loss at which Adam ends, for L = 4 ReLU layers and Gaussian labels, against d² and N; here
for a part of its grid, and for smaller N and d.
"""

import math

import jax
import numpy as np

from ntk_utils.data import gaussian
from ntk_utils.kernels import layer_ntks
from ntk_utils.lab import tables
from ntk_utils.networks import Network, init_params
from ntk_utils.spectra import smallest_eigenvalue
from ntk_utils.training import adam

EIGENVALUES = [
    {"n_samples": n, "d": math.isqrt(1000 * i)}
    for n in (1000, 2000, 3000)
    for i in range(5, 956, 50)
]
"""The points of Figure 1."""

FITS = [
    {"n_samples": n, "d": math.isqrt(d_squared)}
    for n in range(200, 1601, 200)
    for d_squared in range(250, 2001, 250)
]
"""Points of Figure 2, and between and below them: it has N = 400, 800, … and d² = 500, 1000, …"""


def constant_width(d: int, depth: int) -> Network:
    """The networks of the paper: widths (d, …, d, 1), the last layer not divided by its width."""
    return Network((d,) * depth + (1,), (d**-0.5,) * (depth - 1) + (1.0,))


def eigenvalues(n_samples: int, d: int, *, key, activation=jax.nn.sigmoid) -> dict[str, float]:
    """Draw samples and a network of L = 3 for one point of Figure 1.

    Args:
      n_samples: N.
      d: the dimension of the samples and the width of both hidden layers.
      key: a random key of JAX.
      activation: σ, in the paper the sigmoid.

    Returns: "full", λ_min(K̄); "block", that of the term of W_2 alone; "diagonal", the smallest
      K̄_ii, an upper bound on the first.
    """
    key_x, key_w = jax.random.split(key)
    x, params = gaussian(key_x, n_samples, d), init_params(constant_width(d, 3), key_w)
    terms = np.asarray(layer_ntks(params, x, activation=activation))
    k = terms.sum(axis=0)
    return {
        "full": smallest_eigenvalue(k),
        "block": smallest_eigenvalue(terms[1]),
        "diagonal": float(k.diagonal().min()),
    }


def fit(n_samples: int, d: int, *, key, depth: int = 4) -> dict[str, float]:
    """Draw samples, labels and a ReLU network for one point of Figure 2, and train it.

    By at most 10,000 steps of full-batch Adam with the learning rate 1/(10 √N).

    Args:
      n_samples: N.
      d: the dimension of the samples and the width of all hidden layers.
      key: a random key of JAX.
      depth: L, in the paper 4.

    Returns: "log10 loss", of the mean of the last 100 values of (1/N) Σ_i (f(x_i) - y_i)²; "steps".
    """
    key_x, key_y, key_w = jax.random.split(key, 3)
    x, y = gaussian(key_x, n_samples, d), np.asarray(gaussian(key_y, n_samples, 1))[:, 0]
    params = init_params(constant_width(d, depth), key_w)
    run = adam(params, x, y)
    return {
        "log10 loss": math.log10(2 * run.losses[-100:].mean() / n_samples),
        "steps": len(run.losses) - 1,
    }


def main() -> None:
    """Measure what is missing, and write both tables."""
    both = {"bombari22_eigenvalues": (eigenvalues, EIGENVALUES), "bombari22_fits": (fit, FITS)}
    tables.measure(__doc__.splitlines()[0], both, trials=10)


if __name__ == "__main__":
    main()
