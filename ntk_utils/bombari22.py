"""Figures 1 and 2 of Bombari, Amani, Mondelli (NeurIPS 2022, arXiv:2205.10217), measured again.

    make bombari22            # 10 trials a point, as published: half an hour on two cores
    make bombari22 TRIALS=2   # fewer

Stopped at any moment and started again, it goes on where it was. All hidden layers are as wide as
the samples, d = n_1 = … = n_{L-1}, entries of W_l have variance 1/d for l < L and 1 for W_L, and
samples are standard Gaussian. Figure 1 shows λ_min(K̄) of L = 3 sigmoid layers against d². Figure 2
shows the loss at which Adam ends, for L = 4 ReLU layers and Gaussian labels, against d² and N; here
for a part of its grid, and for smaller N and d.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from ntk_utils.data import gaussian
from ntk_utils.kernels import layer_ntks
from ntk_utils.lab import plotting, tables
from ntk_utils.networks import Network, init_params
from ntk_utils.spectra import rounding_error, smallest_eigenvalue
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

PUBLISHED = {204304: 20, 504100: 62, 954529: 128}
"""λ_min of Figure 1 at N = 1000, for three values of d²; read off the figure by eye."""

PUBLISHED_BOUNDARY = {400: 400, 15_000: 11_000}
"""N where Figure 2 turns from fit to no fit, at both ends of its range of d²; read by eye."""


def constant_width(d: int, depth: int, width: int | None = None) -> Network:
    """The networks of the paper: widths (d, …, d, 1), the last layer not divided by its width.

    Args:
      d: the dimension of the samples.
      depth: L, the number of weight matrices.
      width: of all hidden layers; by default d.
    """
    width = width or d
    betas = (d**-0.5, *(depth - 2) * [width**-0.5], 1.0)
    return Network((d, *(depth - 1) * [width], 1), betas)


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
    found = with_rounding(params, x, activation)
    return {name: found[name] for name in ("full", "block", "diagonal")}


def with_rounding(params, x, activation) -> dict[str, float]:
    """Return what `eigenvalues` does, of given weights and samples, with the roundings.

    Args:
      params: (W_1, W_2, …), at least two matrices.
      x: samples, shape (N, d).
      activation: σ.

    Returns: "full", "block" and "diagonal"; "full rounding" and "block rounding", the
      `rounding_error` of K̄ and of the term of W_2.
    """
    terms = np.asarray(layer_ntks(params, x, activation=activation))
    k = terms.sum(axis=0)
    return {
        "full": smallest_eigenvalue(k),
        "block": smallest_eigenvalue(terms[1]),
        "diagonal": float(k.diagonal().min()),
        "full rounding": rounding_error(k),
        "block rounding": rounding_error(terms[1]),
    }


def mean_diagonal(d, activation=jax.nn.sigmoid):
    """Return what E K̄_ii is for large d at a point of Figure 1, to a relative O(1/d).

        (s_1 + a) s_2 d² + c d,   a = E σ(g)²,  s_1 = E σ'(g)²,  c = E σ(√a g)²,  s_2 = E σ'(√a g)²

    for g ~ N(0, 1): the terms of W_1, W_2 and W_3 have s_1 s_2 d², a s_2 d² and c d. Derived here.

    Args:
      d: one dimension, or an array of them.
      activation: σ, smooth: the moments are by a Gaussian rule of 80 nodes.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)

    def moment(f, variance):
        return float(weights @ np.asarray(f(jnp.sqrt(variance) * nodes)) ** 2 / weights.sum())

    slope = jax.vmap(jax.grad(activation))
    a, s_1 = moment(activation, 1.0), moment(slope, 1.0)
    c, s_2 = moment(activation, a), moment(slope, a)
    return (s_1 + a) * s_2 * d**2 + c * d


def fit(
    n_samples: int,
    d: int,
    width: int | None = None,
    until_it_rises: bool = True,
    max_steps: int = 10_000,
    *,
    key,
) -> dict[str, float]:
    """Draw samples, labels and a ReLU network of L = 4 for one point of Figure 2, and train it.

    By full-batch Adam with the learning rate 1/(10 √N), until the loss rises from one hundred steps
    to the next; or, which is not in the paper, until all errors are at most 1e-9 (see `adam`).

    Args:
      n_samples: N.
      d: the dimension of the samples.
      width: of all hidden layers; in the paper, and by default, d.
      until_it_rises: whether to end by that rule.
      max_steps: the largest number of steps.
      key: a random key of JAX.

    Returns: "log10 loss", of the mean of the last 100 values of (1/N) Σ_i (f(x_i) - y_i)²; "steps".
    """
    key_x, key_y, key_w = jax.random.split(key, 3)
    x, y = gaussian(key_x, n_samples, d), np.asarray(gaussian(key_y, n_samples, 1))[:, 0]
    params = init_params(constant_width(d, 4, width), key_w)
    run = adam(params, x, y, steps=max_steps, until_it_rises=until_it_rises)
    return {
        "log10 loss": math.log10(2 * run.losses[-100:].mean() / n_samples),
        "steps": len(run.losses) - 1,
    }


def largest_fitted(fits: pd.DataFrame, level: float | int) -> pd.Series:
    """Return the largest N that is fitted in each column of Figure 2, interpolated to the next one.

    Args:
      fits: as `make bombari22` writes it.
      level: N samples are fitted if "log10 loss mean" is at most this.

    Returns: N by d; NaN where no N or the largest one of the table is fitted.
    """
    found = {}
    for d, column in fits.sort_values("n_samples").groupby("d"):
        n, loss = column[["n_samples", "log10 loss mean"]].to_numpy().T
        last = np.flatnonzero(loss <= level)[-1:]
        inside = len(last) and last[0] + 1 < len(n)
        ends = slice(last[0], last[0] + 2) if inside else slice(0)
        found[d] = np.interp(level, loss[ends], n[ends]) if inside else np.nan
    return pd.Series(found).rename_axis("d")


def local_exponents(table: pd.DataFrame) -> pd.DataFrame:
    """Return the exponents of λ_min in d² between five of the twenty dimensions of Figure 1.

    Args:
      table: as `make bombari22` writes it.

    Returns: one column for each N; a row has the exponent from the d² of the row before to its own.
    """
    means = table.assign(size=table.d**2).pivot(
        index="size", columns="n_samples", values="full mean"
    )
    logs = np.log(means.iloc[[0, 1, 4, 10, 19]])
    sizes = pd.Series(np.log(logs.index), logs.index)
    return logs.diff().div(sizes.diff(), axis=0).iloc[1:]


def spreads(table: pd.DataFrame, ratios) -> pd.DataFrame:
    """Compare λ_min/d² between the N of Figure 1: the largest of the values over the smallest.

    Args:
      table: as `make bombari22` writes it.
      ratios: values of d²/N, within the range that all N have, the smallest N times them too.

    Returns: for each ratio q the quotient at "same d²/N" = q, and at "same d²" = q times the
      smallest N. Between measured points all is interpolated on logarithmic axes.
    """
    ratios, smallest = np.asarray(ratios), table.n_samples.min()
    found = {"same d²/N": [], "same d²": []}
    for n, curve in table.sort_values("d").groupby("n_samples"):
        size = curve.d.to_numpy() ** 2
        value = np.log(curve["full mean"].to_numpy() / size)
        for name, at in zip(found, (n * ratios, smallest * ratios), strict=True):
            found[name].append(np.interp(np.log(at), np.log(size), value))
    quotients = {name: np.exp(np.ptp(values, axis=0)) for name, values in found.items()}
    return pd.DataFrame(quotients, pd.Index(ratios, name="d²/N"))


def draw_eigenvalues(axes, table: pd.DataFrame):
    """Draw Figure 1: λ_min against d² as published, and λ_min/d² against d²/N.

    Args:
      axes: two axes to draw on. On the left is λ_min, the published points, and λ_min of the term
        of W_2 alone for the smallest N; on the right also the smallest K̄_ii.
      table: as `make bombari22` writes it.
    """
    left, right = axes
    for n, curve in table.groupby("n_samples"):
        size = curve.d.to_numpy() ** 2
        mean, sd, diagonal = curve[["full mean", "full sd", "diagonal mean"]].to_numpy().T
        plotting.mean(left, size, mean, sd, label=f"$N={n}$")
        plotting.mean(right, size / n, mean / size, sd / size, label=f"$N={n}$")
        plotting.bound(
            right, size / n, diagonal / size, side="upper", label=r"right: smallest $\bar K_{ii}$"
        )
    first = table[table.n_samples == table.n_samples.min()]
    size, block = first.d.to_numpy() ** 2, first["block mean"].to_numpy()
    label = f"left: $W_2$ alone, $N={first.n_samples.iloc[0]}$"
    plotting.bound(left, size, block, side="lower", label=label)
    plotting.published(left, *np.array([*PUBLISHED.items()]).T, label="published")
    left.set(xlabel="$d^2$", ylabel=r"$\lambda_{\min}(\bar K)$")
    right.set(xscale="log", yscale="log", xlabel="$d^2/N$", ylabel=r"$\lambda_{\min}(\bar K)/d^2$")
    return axes


def draw_fits(ax: Axes, table: pd.DataFrame, level: float | int) -> Axes:
    """Draw Figure 2: the mean of log10 of the loss, the largest N fitted, the number of weights.

    Args:
      ax: axes to draw on.
      table: as `make bombari22` writes it.
      level: as in `largest_fitted`.
    """
    largest = largest_fitted(table, level)
    d = largest.index.to_numpy()
    losses = table.pivot(index="n_samples", columns="d", values="log10 loss mean")
    mesh = ax.pcolormesh(d**2, losses.index, losses, shading="nearest", cmap="viridis")
    ax.figure.colorbar(mesh, ax=ax, label=r"$\log_{10}$ of the mean squared error")
    ax.plot(d**2, 3 * d**2 + d, "--", color="black", marker="", label="as many weights")
    ends, boundary = zip(*PUBLISHED_BOUNDARY.items(), strict=True)
    ax.plot(
        d**2,
        np.interp(d**2, ends, boundary, left=np.nan),
        color="white",
        marker="",
        path_effects=[withStroke(linewidth=3, foreground="black")],
        label="published, by eye",
    )
    ax.plot(d**2, largest, "o", color="white", markeredgecolor="black", label="largest $N$ fitted")
    limits = losses.index.min() - 100, losses.index.max() + 100
    ax.set(xlabel="$d^2$", ylabel="number of samples $N$", ylim=limits)
    ax.grid(visible=False)
    return ax


def main() -> None:
    """Measure what is missing, and write both tables."""
    both = {"bombari22_eigenvalues": (eigenvalues, EIGENVALUES), "bombari22_fits": (fit, FITS)}
    tables.measure(__doc__.splitlines()[0], both, trials=10)


if __name__ == "__main__":
    main()
