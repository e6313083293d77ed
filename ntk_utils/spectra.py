"""Eigenvalues of kernels and singular values of feature matrices, by LAPACK in double precision."""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
import scipy.optimize
from jax.typing import ArrayLike
from jaxtyping import Float
from scipy.linalg.blas import dtrsv
from scipy.linalg.lapack import dpotrf, dsyevr

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils._scale import exponent_of, over_power_of_two


@checked(k=_checks.kernel)
def smallest_eigenvalue(k: Float[ArrayLike, "N N"]) -> float:
    """Return the smallest eigenvalue λ_min of a symmetric matrix.

    A singular or indefinite matrix is no error: the value is then tiny or negative. Its absolute
    error is of the order ε ‖k‖, ε = 2.2e-16, so below that size its sign says nothing.

    A large matrix is shifted by a little less than λ_min and factored by Cholesky, and λ_min read
    off the largest eigenvalue of the inverse, by Lanczos iterations; then again, from shifts that
    are closer. The last one is as close as rounding allows: that its factor exists shows that no
    eigenvalue is below, but for rounding. Where it does not, or k is small, k is reduced to
    tridiagonal form.

    Args:
      k: symmetric matrix, shape (N, N), float64.

    Raises:
      ValueError, TypeError: not square, not symmetric (beyond 1e-8 of the largest entry), not
        finite, not float64.
    """
    return _smallest_eigenvalue(k)


_EVERY_DIGIT = 2 * np.finfo(np.float64).tiny
# samples; below, LAPACK's tridiagonal form is faster where eigenvalues lie close to each other
_LANCZOS_FROM = 1600
_MOST_FACTORS = 6
_PRODUCTS = 28  # with the inverse: they cost about one factor


def _smallest_eigenvalue(k, without_factor: float | None = None) -> float:
    """λ_min, or the value given for a large k that has no Cholesky factor."""
    if len(k) < _LANCZOS_FROM and 1e-100 < k[0, 0] < 1e100:
        return float(_by_tridiagonal_form(k))
    # the scale taken out: an inverse of 1e-308, or a sum of squares of 1e200, is no number
    exponent, value = exponent_of(k), None
    if len(k) >= _LANCZOS_FROM:
        value = _by_lanczos_on_the_inverse(k, exponent, without_factor)
    if value is None:
        value = _by_tridiagonal_form(over_power_of_two(k, exponent))
    return float(np.ldexp(value, exponent))


def _by_tridiagonal_form(k):
    """λ_min by LAPACK itself: on the way there, scipy.linalg.eigh spends as much as our checks."""
    # k.T as LAPACK has k; bisection to the last digit
    values, *_, info = dsyevr(k.T, compute_v=0, range="I", il=1, iu=1, lower=1, abstol=_EVERY_DIGIT)
    if info:
        raise scipy.linalg.LinAlgError(f"k: LAPACK found no eigenvalue, dsyevr's info is {info}")
    return values[0]


def _by_lanczos_on_the_inverse(k, exponent, without_factor):
    """λ_min of k/2^e; None where a shifted one has no Cholesky factor, or too many were taken.

    Where k itself has none, or is not told from singular by it, `without_factor`.
    """
    diagonal = over_power_of_two(np.diagonal(k), exponent)
    rounding = np.finfo(np.float64).eps * diagonal.max()
    closest = 2 * math.sqrt(len(k)) * rounding  # of a shift whose factor is not lost in rounding
    vector = np.random.default_rng(0).normal(size=len(k))  # the same k gives the same value
    shift, enough = 0.0, None
    for _ in range(_MOST_FACTORS):
        shifted = over_power_of_two(k.T, exponent, order="F")  # as LAPACK has it: k.T is k
        np.fill_diagonal(shifted, diagonal - shift)
        root, info = dpotrf(shifted, lower=1, clean=0, overwrite_a=1)
        is_definite = info == 0 and root.diagonal().min() ** 2 > rounding
        found = _lanczos_on_the_inverse(root, vector, enough) if is_definite else None
        if found is None:
            return without_factor if shift == 0 else None
        distance, error, vector = found
        value = shift + distance
        # the error is the distance to some eigenvalue: that none is below it, the factor shows
        if error <= 4 * rounding and distance <= 2 * closest:
            return value
        # the closer the shift, the further apart the lowest eigenvalues are, as seen from there
        shift, enough = value - max(2 * error, closest), 4 * rounding
    return None


def _lanczos_on_the_inverse(root, vector, enough):
    """λ_min of R Rᵀ by Lanczos iterations, their estimate of its error, its eigenvector.

    They end once the error is small enough, at first (None) a fiftieth of the value; or once a new
    factor, closer to the eigenvalue, is worth more: they have taken the time of one, or the error
    grows, because what looked like one eigenvalue turns out to be several. None where R Rᵀ is so
    close to singular that its inverse has no finite entries.
    """
    basis = np.empty((_PRODUCTS + 1, len(root)))
    basis[0] = vector / np.linalg.norm(vector)
    diagonal, beside, error = [], [], np.inf
    for m in range(1, _PRODUCTS + 1):
        product = _solve(root, basis[m - 1])
        if not np.isfinite(product).all():
            return None
        diagonal.append(basis[m - 1] @ product)
        for _ in range(2):  # twice is enough to be orthogonal to rounding
            product -= (basis[:m] @ product) @ basis[:m]
        beside.append(np.linalg.norm(product))
        if m % 2 == 0:
            inverse, vectors = scipy.linalg.eigh_tridiagonal(diagonal, beside[:-1])
            value, before = 1 / inverse[-1], error
            error = beside[-1] * abs(vectors[-1, -1]) * value**2
            is_enough = error <= (value / 50 if enough is None else enough)
            if is_enough or error > 5 * before:
                break
        basis[m] = product / beside[-1]
    return value, error, vectors[:, -1] @ basis[:m]


def _solve(root, v):
    """(R Rᵀ)⁻¹ v; for a single v several times as fast as LAPACK's own solver."""
    return dtrsv(root, dtrsv(root, v, lower=1), lower=1, trans=1)


ROUNDINGS = 2.0**-33
"""What a million roundings, of relative 2^-53 each, can change in a product of positive numbers."""


def certain_smallest_eigenvalue(k, roundings: int) -> float:
    """A lower bound on λ_min of the positive semidefinite matrix of which k is a rounded copy.

    Each entry k_ij may be wrong by `roundings` · 2^-53 √(k_ii k_jj): then the matrix is by so many
    times the trace, in its norm. LAPACK adds p(N) ε ‖k‖, p "modestly growing" (Users' Guide,
    section 4.7); N ε times the trace is taken for it. Where nothing is left it is 0 exactly.
    """
    margin = (roundings + 2 * len(k)) * 2.0**-53 * np.trace(k)
    return max(eigenvalue_above_rounding(k) - margin, 0.0) * (1 - ROUNDINGS)


@checked(k=_checks.kernel)
def eigenvalue_above_rounding(k) -> float:
    """λ_min of a positive semidefinite matrix, 0 where it is not above `rounding_error`.

    A large k without a Cholesky factor, or with a pivot of the size of rounding, is not reduced:
    λ_min is then at most (N+1) 2^-53 tr(K), half of that error (Higham, Accuracy and Stability of
    Numerical Algorithms, Theorem 10.3).
    """
    value = _smallest_eigenvalue(k, without_factor=0.0)
    return value if value > len(k) * np.finfo(np.float64).eps * np.trace(k) else 0.0


@checked(k=_checks.kernel)
def spectrum(k: Float[ArrayLike, "N N"]) -> Float[np.ndarray, " N"]:
    """Return all eigenvalues of a symmetric matrix, in ascending order.

    Args:
      k: symmetric matrix, shape (N, N), float64.
    """
    return scipy.linalg.eigvalsh(k, check_finite=False)


@checked(k=_checks.kernel)
def conditioning(k: Float[ArrayLike, "N N"]) -> float:
    """Return the condition number λ_max / λ_min of a positive semidefinite matrix.

    It is inf if λ_min is not above rounding: λ_min <= N ε λ_max, ε = 2.2e-16. Gradient descent on
    the linearised network needs of the order of this many steps.

    Args:
      k: symmetric matrix, shape (N, N), float64.
    """
    eigenvalues = scipy.linalg.eigvalsh(k, check_finite=False)
    smallest, largest = eigenvalues[0], eigenvalues[-1]
    if smallest <= len(k) * np.finfo(np.float64).eps * largest:
        return float("inf")
    return float(largest / smallest)


@checked(k=_checks.kernel)
def rounding_error(k: Float[ArrayLike, "N N"]) -> float:
    """Return N ε tr(K), ε = 2.2e-16: an eigenvalue of that size is not told from 0.

    Args:
      k: positive semidefinite matrix, shape (N, N), float64.
    """
    return float(len(k) * np.finfo(np.float64).eps * np.trace(k))


@checked(f=_checks.double_matrix)
def smallest_singular_value(f: Float[ArrayLike, "rows columns"]) -> float:
    """Return σ_min, the smallest of the min(rows, columns) singular values of a matrix.

    For a feature matrix F of shape (N, n): σ_min² = λ_min(F Fᵀ) when n >= N; when n < N that
    eigenvalue is 0, and σ_min is about the columns instead.

    Args:
      f: matrix, shape (rows, columns), float64.
    """
    return float(scipy.linalg.svdvals(f, check_finite=False)[-1])


@checked(population=_checks.labels, n=_checks.positive_integer)
def lower_edge(population: Float[ArrayLike, " N"], n: int) -> float:
    """Return where the spectrum of a sample covariance matrix of n independent columns begins.

        max_{0<u<t_1} u (1 - (1/n) Σ_i t_i / (t_i - u)),   t_1 <= … <= t_N the population

    The matrix is (1/n) A Aᵀ, A = T^{1/2} Z of shape (N, n), the t_i the eigenvalues of T, the
    entries of Z independent, of mean 0 and variance 1. The edge is that of the limiting spectrum
    for N, n → ∞ at a fixed ratio (Silverstein and Choi, J. Multivariate Anal. 54, 1995). For t_i =
    1 it is (1 - √(N/n))², the edge of Marchenko and Pastur.

    Args:
      population: the t_i, positive, in any order, shape (N,).
      n: number of columns.

    Returns: the edge, below t_1; 0 if n <= N.

    Raises:
      ValueError: an entry of `population` is not positive.
    """
    t_1 = population.min()
    if t_1 <= 0:
        raise ValueError(f"population: expected positive numbers, got {t_1}")
    t = population / t_1
    if n <= len(t):
        return 0.0
    found = scipy.optimize.minimize_scalar(
        lambda u: -u * (1 - (t / (t - u)).sum() / n),  # convex
        bounds=(0, 1),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(-found.fun * t_1)
