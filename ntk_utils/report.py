"""How well conditioned is the NTK on someone's own data?

x = ntk_utils.read_data("mine.csv")
report = ntk_utils.conditioning_report(x)
report.plot()
"""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jax.typing import ArrayLike
from jaxtyping import Float
from matplotlib.axes import Axes

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils._progress import progress_bar
from ntk_utils._scale import exponent_of, polar, without_scale
from ntk_utils.bounds.empirical import kernel_and_schur_factors
from ntk_utils.bounds.limiting import limiting_lower_bound
from ntk_utils.bounds.verified import rounded_down, what_is_proved
from ntk_utils.data import DataWarning, parallel_pairs, separation
from ntk_utils.kernels import limiting_ntk
from ntk_utils.lab import plotting
from ntk_utils.lab.sweep import sweep
from ntk_utils.networks import Network, init_params
from ntk_utils.spectra import ROUNDINGS, eigenvalue_above_rounding

_WIDEST = 16
"""The search for the wide layer ends at this many neurons a sample."""

_SINGULAR = 1e-10
"""A limit whose λ_min is this small a share of its diagonal counts as singular."""

_DOMINANT = 0.99
"""A column with this share of ‖x_i‖², in the mean, decides alone: the others turn a sample by an
angle of 0.1 from its axis (root mean square), and cosines between samples are near ±1."""

_LONG = 1000
"""From this many samples on the progress bar begins with an estimate."""

_PATIENCE = 1.0
"""After so many seconds the progress bar shows."""


class ConstantColumnWarning(DataWarning):
    """Columns with one value only; centring makes them 0. `indices` lists them."""


class DominantColumnWarning(DataWarning):
    """A column that decides the directions of the samples, and so the kernel. `indices` is [it]."""


class RepeatedRowWarning(DataWarning):
    """Rows that point the same way: λ_min = 0 at any width. `indices` lists the pairs (i, j)."""


@dataclass(frozen=True)
class ConditioningReport:
    """What `conditioning_report` finds, in the units of the limiting kernel K^(L).

    Attributes:
      summary: one row a quantity: what is known without drawing a network, and the answer.
      table: one row a width of the wide layer, and one for the limit (width inf): medians of
        lower, lambda_min (0 where it is rounding), upper and share.
      draws: one row a drawn network: width, seed, lower, lambda_min, upper, share; and `proved`, if
        asked for.
      width: the smallest width whose share is half of the limit's, None if none was found.
      singular: whether the limiting kernel itself is singular, so that no width helps.
    """

    summary: pd.DataFrame
    table: pd.DataFrame
    draws: pd.DataFrame
    width: int | None
    singular: bool

    def __str__(self) -> str:
        table = self._printed.to_string(float_format="{:.3g}".format)
        return f"{self.summary.to_string(header=False)}\n\n{table}"

    def _repr_html_(self) -> str:
        table = self._printed.to_html(float_format="{:.3g}".format)
        return self.summary.to_html(header=False) + table

    @property
    def _printed(self) -> pd.DataFrame:
        """The table with its widths as they are read: 7, not 7.0, and ∞."""
        return self.table.rename(index=lambda width: "∞" if width == np.inf else f"{width:.0f}")

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw λ_min between its certificates, against the width of the wide layer.

        Args:
          ax: axes to draw on; new ones by default.
        """
        if ax is None:
            figure, ax = plt.subplots(layout="constrained")
        else:
            figure = None
        finite = self.table.iloc[:-1]
        widths = finite.index.to_numpy()
        rounding = 1e-12 * self.table.upper.iloc[-1]
        positive = self.draws[self.draws.lambda_min > rounding]
        plotting.measured(ax, positive, "width", "lambda_min", label=r"measured $\lambda_{\min}$")
        upper = finite.upper.where(finite.upper > rounding).to_numpy()
        plotting.bound(ax, widths, upper, side="upper", label="smallest $K_{ii}$")
        certified = finite.lower.where(finite.lower > rounding).to_numpy()
        if np.isfinite(certified).sum() > 1:
            plotting.bound(ax, widths, certified, side="lower", label="Schur bound")
        limit = np.full(len(finite), self.table.lambda_min.iloc[-1])
        plotting.limit(ax, widths, limit, label="infinite width")
        if self.width is not None:
            ax.axvline(self.width, color="grey", linewidth=0.8, label="half of the limit's share")
        plotting.log_log(ax, list(widths)).set(
            xlabel="width of the wide layer", ylabel=r"eigenvalue, in units of $K^{(L)}$"
        )
        if figure is None:
            ax.legend()
        else:
            plotting.legend(figure)
        return ax


def _scaling(name: str, value) -> str:
    if value not in ("sphere", "none"):
        raise ValueError(f"{name}: expected 'sphere' or 'none', got {value!r}")
    return value


@checked(x=_checks.samples, scale=_scaling, seeds=_checks.iterable)
def conditioning_report(
    x: Float[ArrayLike, "N d"],
    widths: Sequence[int] | None = None,
    *,
    scale: str = "sphere",
    seeds: Iterable[int] = range(3),
    verified: bool = False,
    progress: bool = True,
) -> ConditioningReport:
    """Report how well conditioned the NTK is on these samples, and which width makes it so.

    Networks are drawn with weights of variance 1, and K̄ is multiplied by ∏_{l=1}^{L-1} 2/n_l: the
    units in which it tends to K^(L), whose diagonal is L ‖x_i‖². The *share* of a kernel is
    λ_min / mean_i K_ii, between 0 and 1, the same in any units.

    The widest hidden layer is replaced by layers 2^m times as wide, m negative or positive, from
    the first network with as many weights as samples (below it λ_min = 0); the other widths stay. K̄
    is near its limit when the median of its share over the seeds is at least half of the limit's
    share. The search ends at the first such width, not before the given one, and at 16 N
    neurons in any case: narrow other layers may keep K̄ away from the limit at any width. A limit
    whose share is at most 1e-10 is *singular*, of which half is no aim: rows are repeated, or
    nearly, or too many for their dimension. Then the given network alone is drawn.

    N = 500 takes seconds; the time grows as N³. From N = 1000 on the progress bar begins with an
    estimate of it, from the speed at which this machine multiplies two matrices: to the given
    width, and at most, if the search goes on to 16 N neurons.

    Args:
      x: at least two samples, shape (N, d).
      widths: (d, n_1, …, n_{L-1}, 1), at least one hidden layer; by default (d, N, 1).
      scale: "sphere" subtracts the mean of each column and scales each row to norm √d, as `digits`
        is scaled; "none" takes the rows as they are. Columns are not standardised.
      seeds: of the drawn networks, at least one.
      verified: prove a lower bound on λ_min of every drawn network, `verified_lower_bound`, about
        three times the work: a column `proved` of the draws, and the largest one in the summary. It
        is 0 where nothing is proved.
      progress: show a progress bar where it takes longer than a second, as `sweep` does.

    Returns: tables, the smallest width, and a figure.

    Raises:
      ValueError, TypeError: fewer than two samples, entries that are not finite, or whose squares
        are not while they are taken as they are, widths that do not start with d or have no hidden
        layer, a sample that is 0 after scaling, an unknown scale.

    Warns:
      ConstantColumnWarning: some columns have one value only.
      DominantColumnWarning: after scaling, a column carries 99 % of ‖x_i‖² in the mean over the
        samples, as one does that spans many orders of magnitude: the kernel depends on the
        directions of the samples, and those are all near its axis.
      RepeatedRowWarning: some rows point the same way, so that λ_min = 0.
    """
    x = np.asarray(x, dtype=np.float64)
    network = Network((x.shape[1], len(x), 1) if widths is None else widths)
    _checks.fits_width("x", x, network.widths[0])
    if network.depth < 2:
        raise ValueError(f"widths: expected at least one hidden layer, got {network.widths}")

    x = scaled(x, scale)
    repeated = _repeated_rows(x)
    wide = 1 + int(np.argmax(network.widths[1:-1]))
    asked = network.widths[wide]
    searched = {
        n: _widened(network.widths, wide, n) for n in _doublings(network.widths, wide, len(x))
    }
    with _bar(len(x), searched, asked, len(seeds), silent=not progress) as bar:
        limit = _sizes(np.asarray(limiting_ntk(x, depth=network.depth)))
        limit["lower"] = limiting_lower_bound(x, depth=network.depth)
        bar.update(_work(len(x)))
        singular = bool(repeated) or limit["share"] <= _SINGULAR
        draws, width = [], None
        for n in [asked] if singular else searched:
            draws.append(_draw(x, searched[n], n, seeds, bar, verified))
            if width is None and not singular and draws[-1].share.median() >= limit["share"] / 2:
                width = n
            if width is not None and n >= asked:
                break

    draws = pd.concat(draws, ignore_index=True)
    at_infinity = pd.DataFrame(limit, index=[np.inf])
    table = pd.concat([draws.groupby("width").median(), at_infinity])
    table = table.rename_axis("width")[["lower", "lambda_min", "upper", "share"]]
    summary = _summary(x, network, limit, "the limit is singular" if singular else width, draws)
    return ConditioningReport(summary, table, draws, width, singular)


def scaled(x: np.ndarray, scale: str) -> np.ndarray:
    """The samples as `scale` asks; warns of columns that are constant, or decide alone."""
    constant = np.flatnonzero((x == x[0]).all(axis=0)).tolist()
    if constant:
        message = f"x: columns {_listed(constant)} have one value only"
        warnings.warn(ConstantColumnWarning(message, constant), stacklevel=4)
    if scale == "sphere":
        x, _ = without_scale(x)  # the difference of two large numbers may be none
        size = np.abs(x).max(axis=0)
        x = x - x.mean(axis=0)
        # what is left may be the rounding of the mean
        x[np.abs(x) <= 2 * len(x) * np.finfo(np.float64).eps * size] = 0.0
    elif abs(exponent_of(np.abs(x))) > 500:
        raise ValueError(
            "x: expected entries whose squares are numbers, or scale='sphere', "
            f"got a largest one of {np.abs(x).max():.3g}"
        )
    norms, u = polar(x)
    if not norms.all():
        at_zero = np.flatnonzero(norms == 0).tolist()
        raise ValueError(
            f"x: expected samples other than 0 (after scaling), got zero rows {_listed(at_zero)}"
        )
    _warn_of_a_dominant_column(u)
    return math.sqrt(x.shape[1]) * u if scale == "sphere" else x


def _warn_of_a_dominant_column(u: np.ndarray) -> None:
    shares = np.square(u).mean(axis=0)
    column = int(np.argmax(shares))
    if len(shares) > 1 and shares[column] > _DOMINANT:
        message = (
            f"x: column {column} carries {shares[column]:.1%} of the squared norm of a sample (in "
            "the mean), so the kernel depends on little else; its logarithm, or columns of the "
            "same variance, would let the others count"
        )
        warnings.warn(DominantColumnWarning(message, [column]), stacklevel=5)


def _repeated_rows(x: np.ndarray) -> list[tuple[int, int]]:
    pairs = parallel_pairs(x)
    if pairs:
        message = f"x: rows {_listed(pairs)} point the same way, so the smallest eigenvalue is 0"
        warnings.warn(RepeatedRowWarning(message, pairs), stacklevel=4)
    return pairs


def _listed(items: list, at_most: int = 10) -> str:
    more = f" and {len(items) - at_most} more" if len(items) > at_most else ""
    return f"{', '.join(map(str, items[:at_most]))}{more}"


def _doublings(widths: tuple[int, ...], wide: int, n_samples: int) -> Iterator[int]:
    """Widths of layer `wide`, 2^m times the given one, from N weights in all to 16 N neurons."""
    outside = sum(
        n * n_next
        for i, (n, n_next) in enumerate(itertools.pairwise(widths))
        if i not in (wide - 1, wide)
    )
    smallest = (n_samples - outside) / (widths[wide - 1] + widths[wide + 1])
    m = 0
    while widths[wide] * 2.0 ** (m - 1) >= max(smallest, 1):
        m -= 1
    while m <= 0 or widths[wide] * 2**m <= _WIDEST * n_samples:
        yield math.ceil(widths[wide] * 2.0**m)
        m += 1


def _widened(widths: tuple[int, ...], wide: int, n: int) -> tuple[int, ...]:
    """The widths with n neurons in layer `wide` instead."""
    return (*widths[:wide], n, *widths[wide + 1 :])


def _draw(x, widths: tuple[int, ...], n: int, seeds, bar, verified: bool) -> pd.DataFrame:
    """Networks of these widths, of which n is the one that is searched: a row for each seed."""
    network = Network(widths, (1.0,) * (len(widths) - 1))
    unit = math.prod(2 / n_l for n_l in widths[1:-1])
    work = _work(len(x), widths)
    bar.total = max(bar.total, bar.n + len(seeds) * work)  # the search goes on
    bar.set_postfix_str(f"width {n}")

    def measure(width, key):  # noqa: ARG001  (the width enters the key)
        params = init_params(network, key)
        k, *factors = kernel_and_schur_factors(params, x)
        sizes = {"lower": np.dot(*factors), **_sizes(np.asarray(k))}
        if verified:
            sizes["proved"] = what_is_proved(params, x) * (1 - ROUNDINGS)  # of the unit too
        bar.update(work)
        return {name: value if name == "share" else unit * value for name, value in sizes.items()}

    return sweep(measure, {"width": [n]}, seeds, progress=False)


def _sizes(k: np.ndarray) -> dict[str, float]:
    lambda_min = eigenvalue_above_rounding(k)  # of rounding the digits differ between machines
    diagonal = np.diagonal(k)
    # every neuron of a narrow layer may be off
    share = lambda_min / diagonal.mean() if diagonal.any() else 0.0
    return {"lambda_min": lambda_min, "upper": float(diagonal.min()), "share": float(share)}


# --- time: what is left of a report on many samples -----------------------------------------------


def _work(n_samples: int, widths: tuple[int, ...] = ()) -> int:
    """About how many multiplications a kernel takes, drawn at these widths, or the limit.

    Two Gram matrices a layer, λ_min of K̄ and of each Gram matrix of full rank, each about N³ by two
    Cholesky factors and some iterations, and passes over the entries, each as long as many
    multiplications.
    """
    hidden = widths[1:-1]
    products = 2 * sum(hidden) + n_samples * (1 + sum(n >= n_samples for n in hidden))
    return n_samples**2 * (products + (_PASSES if hidden else _PASSES_OF_THE_LIMIT))


_PASSES, _PASSES_OF_THE_LIMIT = 2_000, 15_000  # multiplications an entry


def _bar(n_samples: int, searched: dict[int, tuple], asked: int, n_seeds: int, *, silent: bool):
    """A bar in units of `_work`, to the width that is asked for."""
    work = {n: n_seeds * _work(n_samples, widths) for n, widths in searched.items()}
    limit = _work(n_samples)
    to_asked = limit + sum(of_width for n, of_width in work.items() if n <= asked)
    bar = progress_bar(
        to_asked,
        silent=silent,
        desc="conditioning_report",
        delay=_PATIENCE,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
    )
    if n_samples >= _LONG and not bar.disable:
        rate = _multiplications_a_second()
        expected, at_most = (_rounded(w / rate) for w in (to_asked, limit + sum(work.values())))
        bar.set_description_str(f"about {expected} to width {asked}, at most {at_most}")
    return bar


def _multiplications_a_second(n: int = 1000) -> float:
    """How fast this machine forms A Aᵀ, whose entries are half of those of a product."""
    a = np.random.default_rng(0).normal(size=(n, n))

    def seconds():
        start = time.perf_counter()
        a @ a.T
        return time.perf_counter() - start

    return n**3 / min(seconds() for _ in range(5))


def _rounded(seconds: float) -> str:
    """One digit, in seconds, minutes or hours."""
    size, unit = seconds, "s"
    for longer in ("min", "h"):
        if size >= 95:
            size, unit = size / 60, longer
    return f"{max(float(f'{size:.1g}'), 1):.0f} {unit}"


def _summary(x, network, limit, width, draws) -> pd.DataFrame:
    values = {
        "samples N": len(x),
        "dimension d": x.shape[1],
        "separation": float(f"{separation(x):.3g}"),
        "limiting kernel: certified lower bound": float(f"{limit['lower']:.3g}"),
        "limiting kernel: λ_min": float(f"{limit['lambda_min']:.3g}"),
        "limiting kernel: upper bound L min‖x‖²": float(f"{limit['upper']:.3g}"),
        "limiting kernel: λ_min / mean diagonal": float(f"{limit['share']:.3g}"),
        "network": str(network.widths),
        "smallest width with half of the limit's share": "none found" if width is None else width,
    }
    if "proved" in draws:
        best = draws.loc[draws.proved.idxmax()]
        values[f"proved: λ_min at width {best.width:.0f}, seed {best.seed:.0f}"] = (
            f">= {rounded_down(best.proved)}"
        )
    return pd.DataFrame({"value": pd.Series(values, dtype=object)})
