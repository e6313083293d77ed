"""One look for every figure: colour-blind safe, readable in grey, one line style a role.

| role | drawn as |
|---|---|
| measured | markers at the median, band from the smallest to the largest seed |
| mean of many trials | markers at the mean, band of one standard deviation on either side |
| published | black crosses |
| lower bound, upper bound | dashed, dotted |
| infinite-width limit | solid black |
| reference slope | thin grey |

Series differ by marker as well as by colour. Every function draws on the axes it is given and
returns them.
"""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from ntk_utils import _checks

_SCALES = {"paper": 0.8, "notebook": 1.0, "talk": 1.5, "poster": 2.0}  # seaborn's, of its fonts
_SIZE = np.array([5.5, 3.4])  # inches, of one panel in a notebook
_MARKERS = ("o", "s", "^", "D", "v", "P")
_BOUND_LINES = {"lower": "--", "upper": ":"}


def use_style(context: str = "notebook") -> None:
    """Set matplotlib's defaults for all figures that follow.

    A figure grows with its fonts and lines: it looks the same in every context, only larger,
    5.5 × 3.4 inches in a notebook, 8.25 × 5.1 in a talk.

    Args:
      context: seaborn's scale, "paper", "notebook", "talk" (a lecture hall) or "poster".

    Raises:
      ValueError: an unknown context.
    """
    if context not in _SCALES:
        raise ValueError(f"context: expected one of {', '.join(_SCALES)}, got {context!r}")
    colors = sns.color_palette("colorblind", len(_MARKERS))
    sns.set_theme(
        context=context,
        style="whitegrid",
        font="DejaVu Sans",  # matplotlib brings it: figures look the same on every machine
        rc={
            "axes.prop_cycle": plt.cycler(color=colors, marker=_MARKERS),
            "figure.figsize": _SIZE * _SCALES[context],
            "figure.constrained_layout.use": True,
            "lines.markersize": 6 * _SCALES[context],
            "legend.fontsize": 9 * _SCALES[context],
            "svg.hashsalt": "ntk_utils",
        },
    )


def panels(n: int, *, rows: int = 1, size: float = 1.0, **options) -> tuple[Figure, np.ndarray]:
    """Make a figure of n axes side by side, each as large as the axes of a single figure.

    Args:
      n: number of axes in a row, at least 1.
      rows: number of rows, at least 1.
      size: width and height of each, as multiples of those of a single figure.
      **options: of `matplotlib.pyplot.subplots`, such as sharey=True.

    Returns: the figure, and its axes, shape (n,) for one row, else (rows, n).
    """
    n, rows = _checks.positive_integer("n", n), _checks.positive_integer("rows", rows)
    size = _checks.positive_number("size", size)
    width, height = plt.rcParams["figure.figsize"]
    of_figure = n * width * size, rows * height * size
    figure, axes = plt.subplots(rows, n, figsize=of_figure, squeeze=False, **options)
    return figure, axes[0] if rows == 1 else axes


def legend(figure: Figure, *, ncols: int = 1) -> Legend:
    """Put one legend for all axes of a figure on its right, where it covers no data.

    The figure is made wider by the legend, so the axes keep their size. A label that several axes
    share is shown once. Call it last, before `plt.show()`.

    Args:
      figure: the figure; its labelled artists are listed.
      ncols: number of columns.

    Raises:
      ValueError: nothing in the figure has a label.
    """
    if not isinstance(figure, Figure):
        raise TypeError(f"figure: expected a matplotlib figure, got {type(figure).__name__}")
    handles = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        raise ValueError("figure: expected something with a label in it, got nothing")
    legend = figure.legend(
        handles.values(), handles.keys(), loc="outside right upper", ncols=ncols, frameon=False
    )
    width, height = figure.get_size_inches()
    own = legend.get_window_extent().width / figure.dpi
    figure.set_size_inches(math.ceil(4 * (width + own)) / 4, height)  # whole quarters of an inch
    return legend


def measured(ax: Axes, table: pd.DataFrame, x: str, y: str, *, label: str) -> Axes:
    """Draw a measured quantity: its median over the seeds, and their range as a band.

    Args:
      ax: axes to draw on.
      table: as `sweep` returns it.
      x: name of the column on the horizontal axis.
      y: name of the measured column.
      label: name of the series in the legend.

    Raises:
      ValueError: x or y is not a column of the table.
    """
    _is_axes(ax)
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"table: expected a pandas DataFrame, got {type(table).__name__}")
    for argument, column in (("x", x), ("y", y)):
        if column not in table:
            raise ValueError(
                f"{argument}: expected a column of the table, {list(table)}, got {column!r}"
            )
    by_x = table.groupby(x)[y]
    (line,) = ax.plot(by_x.median(), label=label)
    ax.fill_between(
        by_x.min().index, by_x.min(), by_x.max(), color=line.get_color(), alpha=0.25, linewidth=0
    )
    return ax


def mean(ax: Axes, x: ArrayLike, mean: ArrayLike, sd: ArrayLike, *, label: str) -> Axes:
    """Draw the mean over many trials, and one standard deviation on either side as a band.

    Args:
      ax: axes to draw on.
      x: abscissas of the curve.
      mean: means of the trials.
      sd: standard deviation of a single trial.
      label: name of the series in the legend.
    """
    _is_axes(ax)
    x, mean, sd = np.asarray(x), np.asarray(mean), np.asarray(sd)
    (line,) = ax.plot(x, mean, label=label)
    ax.fill_between(x, mean - sd, mean + sd, color=line.get_color(), alpha=0.25, linewidth=0)
    return ax


def published(ax: Axes, x: ArrayLike, y: ArrayLike, *, label: str) -> Axes:
    """Draw points that were read off a published figure, as black crosses.

    Args:
      ax: axes to draw on.
      x: abscissas of the points.
      y: ordinates of the points.
      label: name in the legend.
    """
    _is_axes(ax)
    ax.plot(np.asarray(x), np.asarray(y), "x", color="black", label=label, zorder=3)
    return ax


def bound(ax: Axes, x: ArrayLike, y: ArrayLike, *, side: str, label: str, color="black") -> Axes:
    """Draw a bound: dashed if it bounds from below, dotted if from above.

    Args:
      ax: axes to draw on.
      x: abscissas of the curve.
      y: ordinates of the curve.
      side: "lower" or "upper".
      label: name in the legend.
      color: of the line; that of a measured series when each series has its own bound.

    Raises:
      ValueError: an unknown side.
    """
    _is_axes(ax)
    if side not in _BOUND_LINES:
        raise ValueError(f"side: expected 'lower' or 'upper', got {side!r}")
    ax.plot(np.asarray(x), np.asarray(y), _BOUND_LINES[side], marker="", color=color, label=label)
    return ax


def limit(ax: Axes, x: ArrayLike, y: ArrayLike, *, label: str) -> Axes:
    """Draw the infinite-width limit, as a solid black line.

    Args:
      ax: axes to draw on.
      x: abscissas of the curve.
      y: ordinates of the curve.
      label: name in the legend.
    """
    _is_axes(ax)
    ax.plot(np.asarray(x), np.asarray(y), "-", marker="", color="black", label=label)
    return ax


def reference_slope(
    ax: Axes, x: Sequence[float], slope: float, *, through: tuple[float, float], label: str
) -> Axes:
    """Draw y ∝ x^slope through a point, as a thin grey line: a slope to compare with.

    Args:
      ax: axes to draw on.
      x: positive values; the line runs from the smallest to the largest.
      slope: the exponent.
      through: a point (x, y) of the line, both positive.
      label: name in the legend, such as "slope 1".
    """
    _is_axes(ax)
    x0, y0 = (
        _checks.positive_number(f"through[{i}]", float(value)) for i, value in enumerate(through)
    )
    if len(x) == 0:
        raise ValueError("x: expected at least one value, got none")
    ends = np.array([_checks.positive_number("x", float(end)) for end in (min(x), max(x))])
    ax.plot(
        ends, y0 * (ends / x0) ** slope, "-", marker="", color="grey", linewidth=0.8, label=label
    )
    return ax


def log_log(ax: Axes, sizes: Sequence[float]) -> Axes:
    """Make both axes logarithmic, with the measured sizes as ticks of the horizontal one.

    Args:
      ax: axes to change.
      sizes: the positive values at which something was measured.
    """
    _is_axes(ax)
    sizes = [_checks.positive_number(f"sizes[{i}]", float(size)) for i, size in enumerate(sizes)]
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
    ax.set_xticks([], minor=True)
    return ax


def spectrum(ax: Axes, eigenvalues: ArrayLike, *, label: str) -> Axes:
    """Draw eigenvalues in descending order against their rank 1 … N, on a logarithmic scale.

    Args:
      ax: axes to draw on.
      eigenvalues: shape (N,); those that are not positive cannot be drawn on a logarithmic scale
        and are left out.
      label: name of the series in the legend.
    """
    _is_axes(ax)
    descending = np.sort(np.asarray(eigenvalues))[::-1]
    ax.plot(
        np.arange(1, len(descending) + 1),
        np.where(descending > 0, descending, np.nan),
        label=label,
        markersize=3,
    )
    ax.set(yscale="log", xlabel="rank", ylabel="eigenvalue")
    return ax


def architecture(ax: Axes, network, n_samples: int) -> Axes:
    """Draw a network as bars of its widths on a logarithmic scale, with the number of samples.

    Layers of at least N neurons are filled, the others hatched: a wide layer and a bottleneck are
    told apart at one glance, in black and white too. The dashed line is at N.

    Args:
      ax: axes to draw on.
      network: anything with `widths` (d, n_1, …, n_{L-1}, 1), such as a `Network`.
      n_samples: the number N of samples.

    Raises:
      TypeError: `network` has no widths.
      ValueError: N is no positive integer.
    """
    _is_axes(ax)
    if not hasattr(network, "widths"):
        raise TypeError(f"network: expected a network with widths, got {type(network).__name__}")
    n_samples = _checks.positive_integer("n_samples", n_samples)
    wide, narrow = sns.color_palette("colorblind")[0], "white"
    for layer, width in enumerate(network.widths):
        is_wide = width >= n_samples
        ax.bar(
            layer,
            width,
            width=0.7,
            bottom=0,
            color=wide if is_wide else narrow,
            edgecolor="black" if is_wide else "dimgrey",
            hatch="" if is_wide else "///",
        )
        ax.annotate(f"{width}", (layer, width), ha="center", va="bottom", fontsize="small")
    label = f"$N={n_samples}$ samples"
    ax.axhline(n_samples, linestyle="--", color="black", linewidth=1, label=label)
    hidden = [f"$n_{{{layer}}}$" for layer in range(1, len(network.widths) - 1)]
    ax.set_xticks(range(len(network.widths)), ["$d$", *hidden, "output"])
    ax.grid(visible=False, axis="x")
    ax.set(yscale="log", ylabel="width", ylim=(0.7, 3 * max(*network.widths, n_samples)))
    return ax


def _is_axes(ax) -> None:
    if not isinstance(ax, Axes):
        raise TypeError(f"ax: expected matplotlib axes, got {type(ax).__name__}")
