"""Generalised linear models whose data lie at several nodes.

    f(x) = (1/n) Σ_i f_i(x),   f_i(x) = (1/m_i) Σ_j ℓ(a_ij·x; b_ij) + (ρ/2)‖x‖²,   x in R^d.

Node i has a shard of the data, (A_i, b_i) with m_i rows. γ is the largest value of ℓ'', the second
derivative in a_ij·x. The *majorant* γ AᵀA/m + ρ I, on average over the nodes, is nowhere smaller
than the Hessian; for the squared loss it is the Hessian.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.special
from jax.typing import ArrayLike
from jaxtyping import Float

from ntk_utils import _checks
from ntk_utils._checks import checked


class Loss(NamedTuple):
    """ℓ(z; b) with its first two derivatives in z; the second does not depend on b."""

    value: Callable
    slope: Callable
    curvature: Callable
    largest_curvature: float
    """γ"""


def _logistic_curvature(z):
    return scipy.special.expit(z) * scipy.special.expit(-z)


LOSSES = {
    "squared": Loss(lambda z, b: (z - b) ** 2 / 2, lambda z, b: z - b, np.ones_like, 1.0),
    "logistic": Loss(
        lambda z, b: np.logaddexp(0, z) - b * z,
        lambda z, b: scipy.special.expit(z) - b,
        _logistic_curvature,
        0.25,
    ),
}
"""ℓ(z; b) = (z - b)²/2, and log(1 + e^z) - b z for b in {0, 1}."""


class Shard(NamedTuple):
    """What one node has: its own f_i."""

    a: Float[np.ndarray, "m d"]
    """samples, the rows of A_i"""
    b: Float[np.ndarray, " m"]
    """their labels"""
    loss: str
    ridge: float
    """ρ"""

    def value(self, x) -> float:
        """f_i(x)."""
        return LOSSES[self.loss].value(self.a @ x, self.b).mean() + self.ridge / 2 * (x @ x)

    def gradient(self, x) -> np.ndarray:
        """∇f_i(x)."""
        slopes = LOSSES[self.loss].slope(self.a @ x, self.b)
        return slopes @ self.a / len(self.a) + self.ridge * x

    def hessian(self, x) -> np.ndarray:
        """∇²f_i(x)."""
        return self._weighted(LOSSES[self.loss].curvature(self.a @ x))

    def majorant(self, x=None) -> np.ndarray:  # noqa: ARG002
        """γ A_iᵀA_i/m_i + ρ I, whatever x is."""
        return self._weighted(np.full(len(self.a), LOSSES[self.loss].largest_curvature))

    def _weighted(self, weights):
        m, d = self.a.shape
        return (self.a * (weights / m)[:, None]).T @ self.a + self.ridge * np.eye(d)


@dataclass(frozen=True)
class Problem:
    """A generalised linear model whose data lie at n nodes.

    Raises:
      ValueError: fewer than two shards, shards of different widths or with other than one label a
        row; an unknown loss; labels other than 0 and 1 with the logistic loss; ρ < 0.
    """

    shards: list[tuple[Float[ArrayLike, "_ d"], Float[ArrayLike, " _"]]]
    """(A_i, b_i) for each node"""
    loss: Literal["squared", "logistic"] = "squared"
    ridge: float = 0.0
    """ρ"""

    def __post_init__(self):
        shards = []
        for i, (a, b) in enumerate(_checks.iterable("shards", self.shards)):
            a = np.asarray(_checks.inputs(f"shards[{i}][0]", a))
            b = _checks.labels(f"shards[{i}][1]", b)
            if len(a) != len(b):
                raise ValueError(f"shards[{i}]: expected {len(a)} labels, one a row, got {len(b)}")
            shards.append((a, b))
        if len(shards) < 2:
            raise ValueError(f"shards: expected at least two, got {len(shards)}")
        if len({a.shape[1] for a, _ in shards}) > 1:
            raise ValueError(
                f"shards: expected matrices of one width, got {[a.shape for a, _ in shards]}"
            )
        if self.loss not in LOSSES:
            raise ValueError(f"loss: expected one of {list(LOSSES)}, got {self.loss!r}")
        if self.loss == "logistic" and not all(np.isin(b, (0, 1)).all() for _, b in shards):
            raise ValueError("shards: expected labels 0 and 1 for the logistic loss")
        _checks.non_negative_number("ridge", self.ridge)
        object.__setattr__(self, "shards", shards)

    @property
    def dim(self) -> int:
        """d, the number of unknowns."""
        return self.shards[0][0].shape[1]

    @property
    def parts(self) -> list[Shard]:
        """f_1, …, f_n."""
        return [Shard(a, b, self.loss, self.ridge) for a, b in self.shards]

    def value(self, x: Float[ArrayLike, " d"]) -> float:
        """f(x)."""
        return self._mean(Shard.value, x)

    def gradient(self, x: Float[ArrayLike, " d"]) -> Float[np.ndarray, " d"]:
        """∇f(x), shape (d,)."""
        return self._mean(Shard.gradient, x)

    def hessian(self, x: Float[ArrayLike, " d"]) -> Float[np.ndarray, "d d"]:
        """∇²f(x), shape (d, d)."""
        return self._mean(Shard.hessian, x)

    def majorant(self) -> Float[np.ndarray, "d d"]:
        """γ AᵀA/m + ρ I on average over the nodes: the Hessian is nowhere larger. Shape (d, d)."""
        return self._mean(Shard.majorant, np.zeros(self.dim))

    def minimum(self) -> Float[np.ndarray, " d"]:
        """The x where f is least, by one machine that has all data. Shape (d,).

        Raises:
          ValueError: f has no unique minimum, to working precision.
        """
        start = np.zeros(self.dim)
        if self.loss == "squared":
            x = start - _solve(self.hessian(start), self.gradient(start), "shards")
        else:
            x = scipy.optimize.minimize(
                self.value, start, jac=self.gradient, hess=self.hessian, method="trust-exact"
            ).x
            for _ in range(3):  # to the last digit
                x = x - _solve(self.hessian(x), self.gradient(x), "shards")
        return x

    def _mean(self, quantity, x):
        x = _checks.labels("x", x)
        if len(x) != self.dim:
            raise ValueError(f"x: expected {self.dim} entries, got {len(x)}")
        return sum(quantity(part, x) for part in self.parts) / len(self.shards)


@checked(key=_checks.random_key, x=_checks.inputs, y=_checks.labels, n=_checks.positive_integer)
def split(
    key, x: Float[ArrayLike, "m d"], y: Float[ArrayLike, " m"], n: int
) -> list[tuple[Float[np.ndarray, "_ d"], Float[np.ndarray, " _"]]]:
    """Deal samples to n nodes at random, as equally many as can be.

    Args:
      key: random key.
      x: samples, shape (m, d).
      y: labels, shape (m,).
      n: the number of nodes, at most m.

    Raises:
      ValueError: more nodes than samples, or other than one label a sample.
    """
    x = np.asarray(x)
    if len(x) < n:
        raise ValueError(f"n: expected at most as many nodes as samples, {len(x)}, got {n}")
    order = np.asarray(jax.random.permutation(key, len(x)))
    return [(x[rows], y[rows]) for rows in np.array_split(order, n)]


@checked(
    key=_checks.random_key,
    eigenvalues=_checks.labels,
    n=_checks.positive_integer,
    samples=_checks.positive_integer,
)
def least_squares(
    key, eigenvalues: Float[ArrayLike, " d"], n: int, *, samples: int = 64
) -> Problem:
    """Draw a least squares problem whose majorant, its Hessian, has the given eigenvalues.

    A = √m U diag(λ)^(1/2) Vᵀ with random U, UᵀU = I, and V, VᵀV = I; b = A x_0 + noise, the entries
    of x_0 in R^d and of the noise independent and N(0, 1).

    Args:
      key: random key.
      eigenvalues: λ, shape (d,), positive.
      n: the number of nodes.
      samples: of each node; n × samples >= d.

    Raises:
      ValueError: an eigenvalue that is not positive, fewer than d samples in all.
    """
    d, m = len(eigenvalues), n * samples
    if not (eigenvalues > 0).all():
        raise ValueError(f"eigenvalues: expected positive numbers, got {eigenvalues.min():.3g}")
    if m < d:
        raise ValueError(f"samples: expected n × samples >= d = {d}, got {n} × {samples}")
    rng = np.random.default_rng(random_words(key))
    u, v = (np.linalg.qr(rng.standard_normal((rows, d)))[0] for rows in (m, d))
    a = math.sqrt(m) * (u * np.sqrt(eigenvalues)) @ v.T
    b = a @ rng.standard_normal(d) + rng.standard_normal(m)
    return Problem(split(key, a, b, n))


@checked(problem=_checks.instance_of(Problem), factor=_checks.positive_number)
def with_bad_shard(problem: Problem, factor: float) -> Problem:
    """Make the shard of node 0 worse conditioned, in its own directions.

    Of A_0 = U diag(s_1 ≥ s_2 ≥ …) Vᵀ the singular values become s_k c^{(k-1)/(r-1)}, c the factor
    and r their number: the condition number of A_0 is divided by c.

    Args:
      problem: with at least two unknowns, and two samples at node 0.
      factor: c, below 1.

    Raises:
      ValueError: c >= 1, or a shard of one row or column.
    """
    (a, b), *others = problem.shards
    if factor >= 1:
        raise ValueError(f"factor: expected a number below 1, got {factor}")
    if min(a.shape) < 2:
        raise ValueError(f"problem: expected two rows and columns at node 0, got {a.shape}")
    u, singular, vt = np.linalg.svd(a, full_matrices=False)
    bad = (u * singular * np.geomspace(1, factor, len(singular))) @ vt
    return Problem([(bad, b), *others], problem.loss, problem.ridge)


@checked(a=_checks.inputs)
def standardised(a: Float[ArrayLike, "m d"], *, whiten: bool = False) -> Float[np.ndarray, "m _"]:
    """Standardise features, and add a constant one: the last column, all ones.

    Columns that do not vary are left out; the others get the mean 0 and the variance 1. Whitened,
    they become an orthonormal basis of their span, times √m: if they were independent, AᵀA/m = I.

    Args:
      a: features, shape (m, d).
      whiten: whether they are made orthogonal to each other, too.

    Returns: shape (m, number of columns that vary + 1).

    Raises:
      ValueError: no column varies.
    """
    a = np.asarray(a)
    a = a[:, a.std(axis=0) > 0]
    if not a.size:
        raise ValueError("a: expected a column that varies")
    a = (a - a.mean(axis=0)) / a.std(axis=0)
    if whiten:
        a = math.sqrt(len(a)) * np.linalg.svd(a, full_matrices=False)[0]
    return np.column_stack([a, np.ones(len(a))])


@checked(key=_checks.random_key, k=_checks.kernel, y=_checks.labels, n=_checks.positive_integer)
def kernel_regression(
    key, k: Float[ArrayLike, "N N"], y: Float[ArrayLike, " N"], n: int
) -> Problem:
    """Regression on the features of a kernel, in an orthonormal basis of their span.

    The features are the rows of K^(1/2), d = N unknowns. For the empirical NTK K̄ = J Jᵀ this is the
    network's linear model in its weights, of which N samples see no more than N directions. With
    equally many samples at all nodes the Hessian is K/N.

    Args:
      key: random key; deals the samples to the nodes.
      k: kernel, shape (N, N), positive semidefinite.
      y: labels, shape (N,).
      n: the number of nodes, at most N.

    Raises:
      ValueError: k is not symmetric, or has an eigenvalue that is negative beyond rounding; more
        nodes than samples, or other than one label a sample.
    """
    eigenvalues, vectors = np.linalg.eigh(k)
    if eigenvalues[0] < -1e-10 * eigenvalues[-1]:
        raise ValueError(f"k: expected no negative eigenvalue, got {eigenvalues[0]:.3g}")
    features = (vectors * np.sqrt(eigenvalues.clip(0))) @ vectors.T
    return Problem(split(key, features, y, n))


def random_words(key) -> list[int]:
    """A key of JAX as whole numbers, for a generator of NumPy."""
    return [int(word) for word in jax.random.key_data(key)]


def _solve(matrix, vector, name):
    try:
        return scipy.linalg.cho_solve(scipy.linalg.cho_factor(matrix), vector)
    except np.linalg.LinAlgError as error:
        raise ValueError(f"{name}: expected a positive definite Hessian") from error
