"""Samplers and real data, scaled as the theorems ask (‖x‖ ≈ √d), and checks of their hypotheses."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils._random import normals
from ntk_utils._scale import polar


@checked(key=_checks.random_key, n=_checks.positive_integer, d=_checks.positive_integer)
def uniform_sphere(key: Key[Array, ""], n: int, d: int) -> Float[Array, "n d"]:
    """Draw n independent points from the uniform law on the sphere of radius √d in R^d.

    Args:
      key: a random key of JAX.
      n: number of samples.
      d: dimension.
    """
    x = _checks.concrete(gaussian(key, n, d))
    return _checks.on_device(x / ((x**2).sum(axis=1, keepdims=True) / d) ** 0.5)


@checked(key=_checks.random_key, n=_checks.positive_integer, d=_checks.positive_integer)
def gaussian(key: Key[Array, ""], n: int, d: int) -> Float[Array, "n d"]:
    """Draw n independent standard Gaussian vectors in R^d, so E‖x‖² = d.

    Args:
      key: a random key of JAX.
      n: number of samples.
      d: dimension.
    """
    return normals([key], [(n, d)], [1.0])[0]


@checked(n=_checks.positive_integer)
def digits(n: int = 1797) -> Float[Array, "n 64"]:
    """Return the first n of the 1797 handwritten digits (8 × 8 pixels) that scikit-learn ships.

    The mean image of the 1797 is subtracted and every row scaled to ‖x_i‖ = √64 = 8: centred on
    average, as the theorems' zero mean asks of the law, and on the sphere of radius √d.

    Args:
      n: number of samples, at most 1797.

    Raises:
      ValueError: n is larger than 1797.
    """
    images = _digit_data(n).data
    x = images[:n] - images.mean(axis=0)
    return _checks.on_device(8 * x / np.linalg.norm(x, axis=1, keepdims=True))


@checked(n=_checks.positive_integer)
def digit_labels(n: int = 1797) -> Int[np.ndarray, " n"]:
    """Return the labels of the first n handwritten digits, integers 0 to 9, row for row.

    Entry i is the digit that row i of `digits` shows.

    Args:
      n: number of samples, at most 1797.

    Raises:
      ValueError: n is larger than 1797.
    """
    return _digit_data(n).target[:n]


def _digit_data(n: int):
    from sklearn.datasets import load_digits

    data = load_digits()
    size = len(data.target)
    if n > size:
        raise ValueError(f"n: expected at most {size}, the size of the data set, got {n}")
    return data


class DataWarning(UserWarning):
    """Something about the data that is hardly meant, or that makes the kernel singular.

    Attributes:
      indices: the columns, or the rows, or the pairs of rows, that are concerned.
    """

    def __init__(self, message: str, indices: list):
        super().__init__(message)
        self.indices = indices


class RowNumberWarning(DataWarning):
    """Columns that count the rows, which are no coordinates. `indices` lists them."""


class HeaderWarning(DataWarning):
    """A first line of numbers that is read as a sample, but looks like a header: [0]."""


def read_data(
    path,
    *,
    columns: Sequence[str] | None = None,
    sep: str | None = None,
    decimal: str | None = None,
    header: bool | None = None,
) -> Float[np.ndarray, "N d"]:
    """Read a table of numbers from a CSV file: one row a sample, one column a coordinate.

    A first line without any number, or with the numbers 0, 1, …, d-1, is taken as the header. A
    first column that has no name there holds row numbers, as pandas writes them, and is left out.

    Args:
      path: the file, a path or an open text file.
      columns: names of the columns to keep, from the header; by default all. Leave out labels and
        row numbers: they are no coordinates.
      sep: the character between two columns; by default a tab, a semicolon, a comma or a blank, the
        first of these that the second line has.
      decimal: "." or ","; by default the comma where it stands in numbers, is not `sep`, and no
        number has a point.
      header: whether the first line is the header; by default as above.

    Returns: the samples, shape (N, d), N >= 2, as they stand in the file.

    Raises:
      ValueError: an entry is text, missing or infinite (with its line, as an editor counts them,
        and its column, by name, or counted from 0 where there is no header); lines of different
        lengths; fewer than two rows; an unknown column name; a `sep` or `decimal` that cannot be.
      FileNotFoundError: there is no such file.

    Warns:
      RowNumberWarning: a column holds the numbers 0, 1, …, N-1 or 1, 2, …, N.
      HeaderWarning: the first line is read as a sample, but its numbers go up or down in equal
        steps, as years do, and each lies outside of what the others of its column span.
    """
    if not (isinstance(path, str | os.PathLike) or hasattr(path, "read")):
        raise TypeError(f"path: expected a path or an open file, got {type(path).__name__}")
    if columns is not None and isinstance(columns, str):
        raise TypeError(f"columns: expected a sequence of names, got {columns!r}")
    if sep is not None and not (isinstance(sep, str) and len(sep) == 1):
        raise ValueError(f"sep: expected one character, got {sep!r}")
    if decimal not in (None, ".", ",") or (decimal is not None and decimal == sep):
        raise ValueError(f"decimal: expected '.' or ',', and not sep, got {decimal!r}")
    if not (header is None or isinstance(header, bool)):
        raise TypeError(f"header: expected True, False or None, got {header!r}")

    lines = _lines(path)
    sep = _separator(lines) if sep is None else sep
    text = _table(lines, sep)
    decimal = _decimal(text, sep) if decimal is None else decimal
    text = _with_header(text, decimal, header)
    if columns is not None:
        missing = [name for name in columns if name not in text]
        if missing:
            raise ValueError(f"columns: expected names among {list(text)}, got {missing}")
        text = text[list(columns)]
    x = _numbers(text, sep, decimal)
    _warn_of_row_numbers(text, x)
    if header is None and isinstance(text.columns, pd.RangeIndex):
        _warn_of_a_header(x)
    return x


def _lines(path) -> list[str]:
    try:
        content = path.read() if hasattr(path, "read") else Path(path).read_bytes()
        if isinstance(content, bytes):
            content = content.decode("utf-8-sig")  # spreadsheets put a mark first
    except UnicodeDecodeError as error:
        raise ValueError(f"path: expected a CSV file of numbers, got {error}") from error
    lines = list(io.StringIO(content, newline=""))
    if not any(map(str.strip, lines)):
        raise ValueError("path: expected a CSV file of numbers, got an empty file")
    return lines


def _separator(lines: list[str]) -> str:
    """What separates the columns; csv.Sniffer takes the comma of 1,5;2,5 for it."""
    # a name may have any character, a number none of these but a decimal comma
    line = [line for line in lines if line.strip()][:2][-1]
    outside_quotes = re.sub('"[^"]*"', "", line).strip(" \r\n")
    return next((sep for sep in "\t;, " if sep in outside_quotes), ",")


def _table(lines: list[str], sep: str) -> pd.DataFrame:
    """The entries as text, a row for each line that is not blank, under its number in the file."""
    reader = csv.reader(lines, delimiter=sep, skipinitialspace=True)
    try:
        found = [(reader.line_num, row) for row in reader if row not in ([], [""])]
    except csv.Error as error:
        raise ValueError(f"path: expected a CSV file of numbers, got {error}") from error
    numbers, rows = zip(*found, strict=True)
    d = len(rows[0])
    for line, row in found:
        if len(row) != d:
            raise ValueError(
                f"path: expected as many entries in every line as in line {numbers[0]}, {d}, "
                f"got {len(row)} in line {line} (read with sep={sep!r})"
            )
    return pd.DataFrame(rows, index=numbers, dtype=object).map(str.strip)


def _decimal(text: pd.DataFrame, sep: str) -> str:
    """The comma where it stands in numbers, below the first line, and no point does."""
    if sep == ",":
        return "."
    entries = [entry for row in text.to_numpy()[1:] for entry in row]
    numbers = [entry for entry in entries if re.fullmatch(r"[-+\d.,eE]+", entry)]
    has_comma, has_point = (any(mark in number for number in numbers) for mark in ",.")
    return "," if has_comma and not has_point else "."


_SWAPPED = str.maketrans(",.", ".,")


def _as_numbers(entries: pd.Series, decimal: str) -> pd.Series:
    """The entries of a row or column; nan where one is no number."""
    if decimal == ",":
        entries = entries.map(lambda entry: entry.translate(_SWAPPED))
    return pd.to_numeric(entries, errors="coerce")


def _with_header(text: pd.DataFrame, decimal: str, header: bool | None) -> pd.DataFrame:
    """Name the columns as the first line does, if it is a header."""
    names = text.iloc[0]
    has_row_numbers = names.iloc[0] == ""  # as pandas writes them: in a column without a name
    if header is None:
        numbers = _as_numbers(names.iloc[int(has_row_numbers) :], decimal)
        header = numbers.isna().all() or (numbers == np.arange(len(numbers))).all()
    if not header:
        return text
    return text.iloc[1:].set_axis(names, axis="columns").iloc[:, int(has_row_numbers) :]


def _numbers(text: pd.DataFrame, sep: str, decimal: str) -> np.ndarray:
    x = text.apply(_as_numbers, decimal=decimal).to_numpy(dtype=np.float64)
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        row, column = bad[0]
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise ValueError(
            "path: expected a finite number in every entry, "
            f"got {text.iat[row, column]!r} in line {text.index[row]}, column "
            f"{text.columns[column]}{more} (read with sep={sep!r}, decimal={decimal!r})"
        )
    if len(x) < 2:
        raise ValueError(f"path: expected at least two rows of numbers, got {len(x)}")
    return x


def _warn_of_row_numbers(text: pd.DataFrame, x: np.ndarray) -> None:
    n_samples, d = x.shape
    counted = x - np.arange(n_samples)[:, None]
    counts = (counted == counted[0]).all(axis=0) & np.isin(counted[0], [0, 1])
    if counts.any() and d > 1 and n_samples > 2:  # the only column is the data
        columns = np.flatnonzero(counts).tolist()
        named = ", ".join(str(text.columns[j]) for j in columns)
        message = f"path: column {named} counts the rows and is no coordinate: leave it out"
        warnings.warn(RowNumberWarning(message, columns), stacklevel=3)


def _warn_of_a_header(x: np.ndarray) -> None:
    first, others = x[0], x[1:]
    steps = np.diff(first)
    is_counting = (first % 1 == 0).all() and steps.any() and (steps == steps[0]).all()
    is_outside = (first < others.min(axis=0)) | (first > others.max(axis=0))
    if is_counting and is_outside.all() and len(others) > 1:
        message = (
            "path: the first line is read as a sample, but looks like a header: "
            "say header=True, or header=False"
        )
        warnings.warn(HeaderWarning(message, [0]), stacklevel=3)


class Scaling(NamedTuple):
    """The averages of Assumption 2.1 of arXiv:2012.11654, each in units of its target."""

    norm: float
    """mean ‖x‖ / √d"""
    squared_norm: float
    """mean ‖x‖² / d"""
    centred_squared_norm: float
    """mean ‖x - mean x‖² / d"""


@checked(x=_checks.samples)
def scaling(x: Float[ArrayLike, "N d"]) -> Scaling:
    """Measure what the bounds assume of the data: E‖x‖ = Θ(√d), E‖x‖² = Θ(d), E‖x - E x‖² = Ω(d).

    Each average is returned in units of its target, so all three should be of order 1; the last
    one may not be close to 0. (Assumption 2.1 of arXiv:2012.11654v5.)

    Args:
      x: at least two samples, shape (N, d).
    """
    x = np.asarray(x) / math.sqrt(x.shape[1])
    return Scaling(
        norm=float(np.linalg.norm(x, axis=1).mean()),
        squared_norm=float((x**2).sum(axis=1).mean()),
        centred_squared_norm=float(((x - x.mean(axis=0)) ** 2).sum(axis=1).mean()),
    )


@checked(x=_checks.samples)
def separation(x: Float[ArrayLike, "N d"]) -> float:
    """Return the separation δ = min over i ≠ j of min(‖u_i - u_j‖, ‖u_i + u_j‖), u = x/‖x‖.

    δ = 0 when two samples are parallel. If they point the same way (a repeated point, or a
    positive multiple), their rows are parallel in every NTK of a ReLU network without biases, and
    λ_min = 0. The definition is that of Karhadkar, Murray, Montúfar (arXiv:2405.14630), who take x
    of unit norm.

    Args:
      x: at least two samples, shape (N, d), none of them 0.

    Raises:
      ValueError: a sample is the zero vector.
    """
    norms, u = polar(x)
    if not norms.all():
        raise ValueError(
            f"x: expected samples other than 0, got zero rows {np.flatnonzero(norms == 0).tolist()}"
        )
    nearest = [
        np.minimum(
            np.linalg.norm(u[i + 1 :] - u[i], axis=1), np.linalg.norm(u[i + 1 :] + u[i], axis=1)
        ).min()
        for i in range(len(u) - 1)
    ]
    return float(min(nearest))


def parallel_pairs(x) -> list[tuple[int, int]]:
    """The pairs i < j of samples, other than 0, that point the same way to 1e-12; unchecked."""
    from scipy.spatial import KDTree

    norms, u = polar(x)
    kept = np.flatnonzero(norms)
    directions = KDTree(u[kept])
    pairs = kept[directions.query_pairs(1e-12, output_type="ndarray")]
    return sorted((int(i), int(j)) for i, j in pairs)
