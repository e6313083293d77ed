"""One look for every figure: colour-blind safe, readable in grey, one line style a role.

| role | drawn as |
|---|---|
| measured | markers at the median, band from the smallest to the largest seed |
| lower bound, upper bound | dashed, dotted |
| infinite-width limit | solid black |
| reference slope | thin grey |

Series differ by marker as well as by colour. Every function draws on the axes it is given and
returns them.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from jax.typing import ArrayLike
from matplotlib.axes import Axes

from ntk_utils import _checks

_CONTEXTS = ("paper", "notebook", "talk", "poster")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_BOUND_LINES = {"lower": "--", "upper": ":"}


def use_style(context: str = "notebook") -> None:
    """Set matplotlib's defaults for all figures that follow.

    Args:
      context: seaborn's scale, "paper", "notebook", "talk" (a lecture hall) or "poster".

    Raises:
      ValueError: an unknown context.
    """
    if context not in _CONTEXTS:
        raise ValueError(f"context: expected one of {', '.join(_CONTEXTS)}, got {context!r}")
    colors = sns.color_palette("colorblind", len(_MARKERS))
    sns.set_theme(
        context=context,
        style="whitegrid",
        rc={
            "axes.prop_cycle": plt.cycler(color=colors, marker=_MARKERS),
            "figure.figsize": (5.5, 3.4),
            "figure.constrained_layout.use": True,
            "lines.markersize": 6,
            "legend.fontsize": "small",
            "svg.hashsalt": "ntk_utils",
        },
    )


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


def _is_axes(ax) -> None:
    if not isinstance(ax, Axes):
        raise TypeError(f"ax: expected matplotlib axes, got {type(ax).__name__}")
