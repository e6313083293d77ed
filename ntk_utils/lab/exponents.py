"""Exponents of power laws, with intervals over the seeds."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from ntk_utils import _checks


class Exponent(NamedTuple):
    """A fitted exponent with its confidence interval."""

    slope: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.slope:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def within(self, target: float, tolerance: float) -> bool:
        """Whether the whole interval lies in target ± tolerance."""
        return bool(target - tolerance <= self.low and self.high <= target + tolerance)

    def at_least(self, bound: float) -> bool:
        """Whether the whole interval lies at or above the bound."""
        return bool(self.low >= bound)

    def at_most(self, bound: float) -> bool:
        """Whether the whole interval lies at or below the bound."""
        return bool(self.high <= bound)


def fit_exponent(table: pd.DataFrame, x: str, y: str, *, confidence: float = 0.95) -> Exponent:
    """Fit y ∝ x^slope, with a bootstrap interval over the seeds.

    Each seed gives one slope, of the least-squares line through log y against log x at its own
    sizes; the estimate is their mean, and the interval resamples the seeds (9999 times,
    percentiles, always with the same random numbers). It measures the spread between draws, not
    whether a power law is the right model; with very few seeds it is somewhat too narrow.

    Args:
      table: as `sweep` returns it, with columns `seed`, x and y, both positive.
      x: name of the column of sizes.
      y: name of the measured column.
      confidence: level of the interval, in (0, 1).

    Raises:
      ValueError: a missing column, values that are not positive and finite, fewer than two sizes
        for a seed, or fewer than two seeds.
    """
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"table: expected a pandas DataFrame, got {type(table).__name__}")
    for argument, column in (("x", x), ("y", y), ("table", "seed")):
        if not isinstance(column, str) or column not in table:
            raise ValueError(
                f"{argument}: expected a column of the table, {list(table)}, got {column!r}"
            )
    if not 0 < _checks.positive_number("confidence", confidence) < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence}")
    for argument, column in (("x", x), ("y", y)):
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise TypeError(
                f"{argument}: expected numbers in column {column!r}, got {table[column].dtype}"
            )
        bad = table.loc[~(np.isfinite(table[column]) & (table[column] > 0)), column]
        if len(bad):
            raise ValueError(
                f"{argument}: expected positive numbers in column {column!r}, got {bad.iloc[0]}"
            )
    slopes = np.array(
        [_slope(np.log(rows[x]), np.log(rows[y])) for _, rows in table.groupby("seed")]
    )
    if np.isnan(slopes).any():
        raise ValueError(
            f"x: expected at least two different values of {x!r} for every seed, got one"
        )
    if len(slopes) < 2:
        raise ValueError(f"table: expected at least two seeds for an interval, got {len(slopes)}")

    interval = scipy.stats.bootstrap(
        (slopes,),
        np.mean,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Exponent(float(slopes.mean()), float(interval.low), float(interval.high))


def _slope(x, y) -> float:
    centred = x - x.mean()
    spread = float((centred**2).sum())
    return float((centred * y).sum()) / spread if spread > 0 else float("nan")
