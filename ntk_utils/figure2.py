"""Figure 2 of Nguyen, Mondelli, Montúfar (ICML 2021, arXiv:2012.11654v5), measured again.

    make figure2              # 50 trials a point, as published: hours on two cores
    make figure2 TRIALS=2     # fewer

Stopped at any moment and started again, it goes on where it was. Both panels have L = 3 and show
the mean over 50 networks: on the right λ_min(K̄) under He initialisation against N, with n_1 = 8N
and d, n_2 fixed; on the left λ_min(4 K̄/(n_1 n_2)) for weights of variance 1 against d. The law of
the data is not published; standard Gaussian samples are inferred, because they meet the published
points. For comparison, one curve has samples on the sphere of radius √d.
"""

import jax
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ntk_utils.data import gaussian, uniform_sphere
from ntk_utils.kernels import empirical_ntk, wide_layer_ntks
from ntk_utils.lab import plotting, tables
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
        *(("right, sphere", 400, n, 8 * n, 400) for n in SIZES),
    )
]
"""Every point of both panels, and the first curve on the right once more with other samples."""


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
    x, network, unit = _setting(panel, d, n_samples, n_1, n_2, key_x)
    return unit * smallest_eigenvalue(empirical_ntk(init_params(network, key_w), x))


def wide_limit(panel: str, d: int, n_samples: int, n_1: int, n_2: int, *, key) -> dict[str, float]:
    """Return λ_min of the wide-network limit at one point of Figure 2, as plotted, on a draw of x.

    Args: those of `trial`.

    Returns: "limit", that of the whole kernel, and "limit of W₂", that of its term of W_2 alone
      (see `wide_layer_ntks`).
    """
    x, network, unit = _setting(panel, d, n_samples, n_1, n_2, jax.random.split(key)[0])
    terms = wide_layer_ntks(network, x)
    return {
        "limit": unit * smallest_eigenvalue(terms.sum(axis=0)),
        "limit of W₂": unit * smallest_eigenvalue(terms[1]),
    }


def _setting(panel, d, n_samples, n_1, n_2, key_x):
    """The samples, the network, and the factor in front of λ_min."""
    x = (uniform_sphere if panel == "right, sphere" else gaussian)(key_x, n_samples, d)
    if panel == "left":
        return x, Network((d, n_1, n_2, 1), (1.0, 1.0, 1.0)), 4 / (n_1 * n_2)
    return x, Network((d, n_1, n_2, 1), "he"), 1.0


def curves(points: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Split a table of points into the curves of the figure.

    Args:
      points: with the columns of the published table: panel, d, n_samples, n_1, n_2.

    Returns: for each panel and name of a curve, such as ("right", "d = 400, n₂ = 400"), its points
      in the order of the horizontal axis, which is the column "size": N on the right, d on the
      left.
    """
    found = {}
    for panel, of_panel in points.groupby("panel", sort=False):
        size, fixed, name = (
            ("d", "n_samples", "N = {}, n₁ = n₂ = {}")
            if panel == "left"
            else ("n_samples", "d", "d = {}, n₂ = {}")
        )
        for values, curve in of_panel.groupby([fixed, "n_2"], sort=False):
            found[panel, name.format(*values)] = curve.assign(size=curve[size]).sort_values("size")
    return found


def by_curve(measured: pd.DataFrame, published: pd.DataFrame, limits: pd.DataFrame) -> pd.DataFrame:
    """Compare the curves that were measured with the published ones, a straight line, their limit.

    The first two tables have means over independent networks, 50 of them in the second. With s the
    standard error of the difference of two means, s² = sd² (1/trials + 1/50), z is the difference
    divided by s, after 10 has been taken off its size: the published points were read off the
    figure, to about ±10.

    Args:
      measured: as `make figure2` writes it.
      published: the published points, `lambda_min` at the same parameters.
      limits: what `wide_limit` returns, at both ends of the curves at least.

    Returns: one row a curve: "largest |z|"; "|mean z|", times the root of the number of points; the
      mean "difference", relative and with nothing taken off; the weighted least squares line
      "intercept" + "slope" · size; the misfits over the degrees of freedom of this "line, χ²",
      of that "through 0, χ²" and of the best "power, χ²" of the size; the "log-log slope" between
      the ends of the curve, its standard error "±", and the same slope of what was "published", of
      the "limit" and of the "limit of W₂".
    """
    shown = measured.assign(shown=measured.panel.str.removesuffix(", sphere"))
    same = published.rename(columns={"panel": "shown"})
    points = shown.merge(same, on=["shown", *_POINT[1:]], validate="many_to_one")
    points = points.merge(limits[[*_POINT, "limit", "limit of W₂"]], on=_POINT, how="left")
    return pd.DataFrame({name: _compare(curve) for name, curve in curves(points).items()}).T


def draw(ax: Axes, panel: str, *, measured, published, limits) -> Axes:
    """Draw one panel: our means and bands, the published points, and the wide-network limit.

    Args:
      ax: axes to draw on.
      panel: "right" or "left".
      measured: as for `by_curve`.
      published: as for `by_curve`.
      limits: as for `by_curve`.
    """
    columns = lambda curve, *names: curve[["size", *names]].to_numpy().T  # noqa: E731
    for (part, name), curve in curves(measured).items():
        if part.startswith(panel):
            label = name + part.removeprefix(panel)
            plotting.mean(ax, *columns(curve, "mean", "sd"), label=label)
    for (part, _), curve in curves(limits).items():
        if part == panel:
            plotting.limit(ax, *columns(curve, "limit"), label="wide-network limit")
    for (part, _), curve in curves(published).items():
        if part == panel:
            plotting.published(ax, *columns(curve, "lambda_min"), label="published")
    if panel == "left":
        ax.set(xlabel="dimension $d$", ylabel=r"$\lambda_{\min}(4\bar K/(n_1n_2))$")
    else:
        ax.set(xlabel="number of samples $N$", ylabel=r"$\lambda_{\min}(\bar K)$")
    return ax


def _compare(curve):
    t, mean, of_mean = curve["size"], curve["mean"], curve.sd / np.sqrt(curve.trials)
    difference = mean - curve.lambda_min
    of_difference = curve.sd * np.sqrt(1 / curve.trials + 1 / 50)
    z = np.sign(difference) * (abs(difference) - 10).clip(lower=0) / of_difference
    slope, intercept = np.polyfit(t, mean, 1, w=1 / of_mean)
    through_0 = (t * mean / of_mean**2).sum() / (t**2 / of_mean**2).sum()
    power = np.polyfit(np.log(t), np.log(mean), 1, w=mean / of_mean)
    misfit = lambda line: (((mean - line) / of_mean) ** 2).sum()  # noqa: E731
    span = np.log(t.iloc[-1] / t.iloc[0])
    ends = curve[["mean", "lambda_min", "limit", "limit of W₂"]].iloc[[0, -1]]
    slopes = np.log(ends).diff().iloc[-1] / span
    names = {"mean": "log-log slope", "lambda_min": "published"}
    return {
        "largest |z|": abs(z).max(),
        "|mean z|": abs(z.sum()) / np.sqrt(len(z)),
        "difference": (difference / curve.lambda_min).mean(),
        "intercept": intercept,
        "slope": slope,
        "line, χ²": misfit(intercept + slope * t) / (len(t) - 2),
        "through 0, χ²": misfit(through_0 * t) / (len(t) - 1),
        "power, χ²": misfit(np.exp(np.polyval(power, np.log(t)))) / (len(t) - 2),
        "±": np.linalg.norm((of_mean / mean).iloc[[0, -1]]) / span,
        **slopes.rename(names),
    }


def main() -> None:
    """Measure what is missing, and write the table."""
    tables.measure(__doc__.splitlines()[0], {"figure2": (trial, GRID)}, trials=50)


if __name__ == "__main__":
    main()
