"""The empirical NTK as an operator, for kernels too large to form: K̄v without K̄.

Nothing here holds an N × N matrix: memory is O(N Σ n_l). Operators and solvers are lineax's, so
that all of lineax and of matfree applies to them.
"""

from __future__ import annotations

import functools
import warnings
from typing import NamedTuple, SupportsFloat, SupportsIndex

import equinox
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import scipy.sparse.linalg
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key
from matfree import stochtrace

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils._scale import without_scale
from ntk_utils.networks import Params, apply, features_and_backward


@checked(params=_checks.weights, x=_checks.inputs)
def ntk_operator(params: Params, x: Float[ArrayLike, "N d"]) -> lineax.AbstractLinearOperator:
    """Return K̄ = J Jᵀ as a linear operator of lineax, positive semidefinite.

    A product `ntk_operator(params, x).mv(v)` is one reverse-mode product, Jᵀv, and one forward-mode
    product, J(Jᵀv), and K̄ is never formed.

    Args:
      params: (W_1, …, W_L).
      x: samples, shape (N, d).
    """
    jacobian = lineax.JacobianLinearOperator(apply, params, x)
    return lineax.TaggedLinearOperator(jacobian @ jacobian.T, lineax.positive_semidefinite_tag)


@checked(params=_checks.weights, x=_checks.inputs)
@jax.jit
def ntk_diagonal(params: Params, x: Float[ArrayLike, "N d"]) -> Float[Array, " N"]:
    """Compute the diagonal of the empirical NTK; its sum is the trace, exactly.

        K̄_ii = Σ_{k=0}^{L-1} ‖f_k(x_i)‖² ‖b_{k+1}(x_i)‖²,

    b_k(x_i) row i of B_k.

    Args:
      params: (W_1, …, W_L).
      x: samples, shape (N, d).

    Returns: the N entries, shape (N,); their minimum is an upper bound on λ_min(K̄).
    """
    f, b = features_and_backward(params, x)
    squares = [((f_k**2).sum(1), (b_k**2).sum(1)) for f_k, b_k in zip(f, b, strict=True)]
    return sum(f_k * b_k for f_k, b_k in squares)


@checked(operator=_checks.instance_of(lineax.AbstractLinearOperator))
def largest_eigenvalue(operator: lineax.AbstractLinearOperator) -> float:
    """Return λ_max of a symmetric operator, to a relative 1e-10, by Lanczos iterations.

    Gradient descent on the linearised network is stable for step sizes below 2/λ_max.

    Args:
      operator: as `ntk_operator` returns it, N × N with N >= 2.

    Raises:
      ValueError: N = 1.
    """
    n = operator.in_size()
    if n < 2:
        raise ValueError(f"operator: expected at least 2 × 2, got {n} × {n}")
    start = np.random.default_rng(0).normal(size=n)  # the same operator gives the same value
    first, exponent = without_scale(_product(operator, start))
    if not first.any():
        return 0.0
    matrix = _for_scipy(n, lambda v: np.ldexp(_product(operator, v), -exponent))
    (value,) = scipy.sparse.linalg.eigsh(
        matrix, k=1, which="LA", v0=start, tol=1e-10, ncv=min(n, 10), return_eigenvectors=False
    )
    return float(np.ldexp(value, exponent))


def _for_scipy(n: int, product) -> scipy.sparse.linalg.LinearOperator:
    return scipy.sparse.linalg.LinearOperator((n, n), product, dtype=np.float64)


class Estimate(NamedTuple):
    """A random estimate and its standard error."""

    value: float
    standard_error: float


@checked(
    operator=_checks.instance_of(lineax.AbstractLinearOperator),
    key=_checks.random_key,
    n_probes=_checks.positive_integer,
)
def trace_of_square(
    operator: lineax.AbstractLinearOperator, key: Key[Array, ""], *, n_probes: SupportsIndex = 16
) -> Estimate:
    """Estimate tr(K²) = Σ λ_i² from products with random signs, by matfree.

    With the exact trace of `ntk_diagonal` it gives the effective rank (tr K)² / tr(K²).

    Args:
      operator: symmetric, as `ntk_operator` returns it.
      key: a random key of JAX.
      n_probes: the number of products, at least 2; the error falls as its square root.

    Returns: the estimate and its standard error, in the units of K². One eigenvalue far above the
      others makes the error large.

    Raises:
      ValueError: fewer than two probes.
    """
    if n_probes < 2:
        raise ValueError(f"n_probes: expected an integer >= 2, got {n_probes}")
    like = jnp.zeros(operator.in_size())
    # one probe at a time: all at once would need n_probes times the memory
    estimate = stochtrace.estimator_monte_carlo(
        stochtrace.monte_carlo_frobeniusnorm_squared(), stochtrace.sampler_signs(like, num=1)
    )
    values = [
        float(estimate(functools.partial(_product, operator), probe_key))
        for probe_key in jax.random.split(key, n_probes)
    ]
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1) / n_probes**0.5))


class Solution(NamedTuple):
    """The solution of K̄a = y, the steps that it took, and ‖K̄a - y‖ / ‖y‖."""

    value: Float[Array, " N"]
    n_steps: int
    residual: float


@checked(**_checks.labelled, rank=_checks.positive_integer, max_steps=_checks.positive_integer)
def ntk_solve(
    params: Params,
    x: Float[ArrayLike, "N d"],
    y: Float[ArrayLike, " N"],
    *,
    rank: SupportsIndex = 256,
    tolerance: SupportsFloat = 1e-8,
    max_steps: SupportsIndex = 2000,
) -> Solution:
    """Solve K̄a = y by preconditioned conjugate gradients, without forming K̄.

    The preconditioner is (sI + C W⁻¹ Cᵀ)⁻¹ = (I - U Uᵀ)/s, C the columns of K̄ that belong to `rank`
    random samples (Nyström), W their rows of C, s the mean diagonal entry of what C W⁻¹ Cᵀ leaves
    over: it takes away the few large eigenvalues that make K̄ badly conditioned.

    Args:
      params: (W_1, …, W_L).
      x: samples, shape (N, d).
      y: right-hand side, such as labels, shape (N,).
      rank: number of samples for the preconditioner, at most N are used; memory N · rank.
      tolerance: stop at about ‖K̄a - y‖ <= tolerance · ‖y‖.
      max_steps: stop there in any case; `residual` says how far it got.

    Raises:
      ValueError, TypeError: matrices and samples that do not fit together, a number of labels other
        than N, a rank, tolerance or number of steps that is not positive.

    Warns:
      RuntimeWarning: rounding has carried the steps away from the solution; 0 is returned.
    """
    (x, exponent), (y, exponent_y) = without_scale(x), without_scale(y)
    operator = ntk_operator(params, x)
    chosen = np.random.default_rng(0).permutation(len(x))[:rank]
    u, s = map(np.asarray, _nystrom_factors(params, _checks.on_device(x), chosen))
    states = []
    value, _ = scipy.sparse.linalg.cg(
        _for_scipy(len(x), lambda v: np.asarray(_product(operator, v))),
        y,
        rtol=tolerance,
        maxiter=max_steps,
        M=_for_scipy(len(x), lambda v: (v - u @ (u.T @ v)) / s),
        callback=states.append,
    )
    # y = 0 has the solution 0
    residual = float(np.linalg.norm(_product(operator, value) - y) / (np.linalg.norm(y) or 1.0))
    if not residual <= 1:
        warnings.warn(
            f"ntk_solve: after {len(states)} steps the residual was {residual:.3g}, larger than at "
            "the start, which is returned; a larger rank may help",
            RuntimeWarning,
            stacklevel=3,
        )
        value, residual = np.zeros(len(x)), 1.0
    value = _checks.on_device(np.ldexp(value, exponent_y - 2 * exponent))
    return Solution(value, len(states), residual)


@jax.jit
def _nystrom_factors(params, x, chosen):
    f, b = features_and_backward(params, x)
    columns = sum((f_k @ f_k[chosen].T) * (c @ c[chosen].T) for f_k, c in zip(f, b, strict=True))
    trace = ntk_diagonal(params, x).sum()
    floor = 1e-12 * trace / len(x)  # repeated samples make W singular
    a = _divide_by_root(columns, columns[chosen] + floor * jnp.eye(len(chosen)))
    s = jnp.maximum(trace - (a**2).sum(), floor) / len(x)
    return _divide_by_root(a, s * jnp.eye(len(chosen)) + a.T @ a), s


def _divide_by_root(a, gram):
    """A R⁻ᵀ with the Cholesky factor R Rᵀ = gram."""
    root = jnp.linalg.cholesky(gram)
    return jax.scipy.linalg.solve_triangular(root, a.T, lower=True).T


@equinox.filter_jit
def _product(operator, v):
    return operator.mv(v)
