"""Samplers and real data, scaled as the theorems ask (‖x‖ ≈ √d), and checks of their hypotheses."""

import math
import os
from collections.abc import Sequence
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


def read_data(path, *, columns: Sequence[str] | None = None) -> Float[np.ndarray, "N d"]:
    """Read a table of numbers from a CSV file: one row a sample, one column a coordinate.

    A first line without any number, or with the numbers 0, 1, …, d-1, is taken as the header. A
    first column that has no name there holds row numbers, as pandas writes them, and is left out.

    Args:
      path: the file, a path or an open text file.
      columns: names of the columns to keep, from the header; by default all. Leave out labels and
        row numbers: they are no coordinates.

    Returns: the samples, shape (N, d), N >= 2, as they stand in the file.

    Raises:
      ValueError: an entry is text, missing or infinite (with its row and column, counted from 0
        after the header); fewer than two rows; an unknown column name.
      FileNotFoundError: there is no such file.
    """
    if not (isinstance(path, str | os.PathLike) or hasattr(path, "read")):
        raise TypeError(f"path: expected a path or an open file, got {type(path).__name__}")
    if columns is not None and isinstance(columns, str):
        raise TypeError(f"columns: expected a sequence of names, got {columns!r}")
    try:
        text = pd.read_csv(
            path,
            header=None,
            dtype=str,
            skipinitialspace=True,
            keep_default_na=False,  # a column may be called NA
            na_values=[""],
        )
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(
            f"path: expected a CSV file of numbers, got {str(error).strip()}"
        ) from error
    text = _with_header(text)
    if columns is not None:
        missing = [name for name in columns if name not in text]
        if missing:
            raise ValueError(f"columns: expected names among {list(text)}, got {missing}")
        text = text[list(columns)]
    return _numbers(text.reset_index(drop=True))


def _with_header(text: pd.DataFrame) -> pd.DataFrame:
    """Name the columns as the first line does, if it is a header."""
    names = text.iloc[0]
    has_row_numbers = pd.isna(names.iloc[0])  # as pandas writes them: in a column without a name
    numbers = pd.to_numeric(names.iloc[int(has_row_numbers) :], errors="coerce")
    if numbers.notna().any() and (numbers != np.arange(len(numbers))).any():
        return text
    named = text.iloc[1:].set_axis(names.astype(str).str.strip(), axis="columns")
    return named.iloc[:, int(has_row_numbers) :]


def _numbers(text: pd.DataFrame) -> np.ndarray:
    x = text.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        row, column = bad[0]
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise ValueError(
            "path: expected a finite number in every entry, "
            f"got {text.iat[row, column]!r} in row {row}, column {text.columns[column]}{more}"
        )
    if len(x) < 2:
        raise ValueError(f"path: expected at least two rows of numbers, got {len(x)}")
    return x


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
