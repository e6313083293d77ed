"""Eigenvalues of kernels and singular values of feature matrices, by LAPACK in double precision."""

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Float

from ntk_utils import _checks
from ntk_utils._checks import checked


@checked(k=_checks.kernel)
def smallest_eigenvalue(k: Float[ArrayLike, "N N"]) -> float:
    """Return the smallest eigenvalue λ_min of a symmetric matrix.

    A singular or indefinite matrix is no error: the value is then tiny or negative. Its absolute
    error is of the order ε ‖k‖, ε = 2.2e-16, so below that size its sign says nothing.

    Args:
      k: symmetric matrix, shape (N, N), float64.

    Raises:
      ValueError, TypeError: not square, not symmetric (beyond 1e-8 of the largest entry), not
        finite, not float64.
    """
    return float(
        scipy.linalg.eigh(k, eigvals_only=True, subset_by_index=[0, 0], check_finite=False)[0]
    )


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


@checked(f=_checks.double_matrix)
def smallest_singular_value(f: Float[ArrayLike, "rows columns"]) -> float:
    """Return σ_min, the smallest of the min(rows, columns) singular values of a matrix.

    For a feature matrix F of shape (N, n): σ_min² = λ_min(F Fᵀ) when n >= N; when n < N that
    eigenvalue is 0, and σ_min is about the columns instead.

    Args:
      f: matrix, shape (rows, columns), float64.
    """
    return float(scipy.linalg.svdvals(f, check_finite=False)[-1])
