"""Bounds on λ_min(K̄) that are proofs: the rounding of every step is accounted for.

A certificate of `empirical` is computed in floating point, and so is λ_min itself. Here the bounds
hold for the exact kernel of the given weights and samples, as float64 numbers, as a theorem holds.
What is trusted:

- IEEE 754 double precision, rounded to nearest, subnormal numbers kept; checked at run time, in the
  thread that calls (those of BLAS are taken to be alike);
- that BLAS and LAPACK form a product A B, and a Cholesky factor, from sums of products in any
  order, fused or not, the factor entry by entry: no Strassen algorithm, no inverted blocks. Then
  |fl(A B) - A B| <= γ_n |A| |B| entrywise, γ_n = n u / (1 - n u), u = 2^-53, n the roundings of one
  entry (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., chapters 3 and 10);
- this file and what it calls: NumPy, SciPy, `math`, the door and the scales of this package, and
  that JAX copies numbers as they are.

Nothing is known by its probability, so no seed matters.

For the limiting kernel there is no such bound here: it needs an arc cosine whose error is proved,
and none of the libraries in use states one.
"""

from __future__ import annotations

import math
from decimal import ROUND_FLOOR, Decimal
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Float

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils._scale import without_scale
from ntk_utils.networks import Params
from ntk_utils.spectra import ROUNDINGS, smallest_eigenvalue

_U = 2.0**-53
_UP = 1 + ROUNDINGS  # over the rounding of the error bounds themselves, up to 10^5 samples
_LOST = 2.0**-900
"""More than is lost to underflow in any entry: a few times 2^-1074, and what multiplies it."""
_NONE = -(2**20)  # the exponent of 0
_SMALL = 500  # samples, of which an inverse costs next to nothing
_CHUNK = 512  # products summed at once: a sum of chunks has fewer roundings an entry


class Enclosure(NamedTuple):
    """lower <= λ_min(K̄) <= upper, in the units of `empirical_ntk`: proved, not measured.

    lower is 0 where nothing is proved, and upper is inf where no double is large enough.
    """

    lower: float
    upper: float


class UndecidedGate(ValueError):
    """A pre-activation so near to 0 that rounding hides its sign: K̄ jumps where it is 0.

    Attributes:
      layer, sample, neuron: where; layers count from 1, the others from 0.
    """

    def __init__(self, layer, sample, neuron, value, error, others):
        more = f", and {others} more in this layer" if others else ""
        super().__init__(
            f"params, x: expected pre-activations whose signs are certain, got {value:.3g} ± "
            f"{error:.1g} in layer {layer}, sample {sample}, neuron {neuron}{more}"
        )
        self.layer, self.sample, self.neuron = layer, sample, neuron


@checked(params=_checks.weights, x=_checks.inputs)
def verified_bounds(params: Params, x: Float[ArrayLike, "N d"]) -> Enclosure:
    """Enclose the smallest eigenvalue of the exact empirical NTK of a ReLU network.

    Features and gradients are computed as f̂_i and b̂_i, and bounds on ‖f̂_i - f_i‖ and ‖b̂_i - b_i‖
    carried from layer to layer; a gate σ'(g) is decided if |g| is above its error. This gives
    K̂ and numbers δ_i such that K̄ - K̂ + diag(δ) is positive semidefinite.

    - lower: a Cholesky factor of K̂ - diag(δ) - s I that exists, δ with room for its own rounding,
      proves λ_min(K̄) >= s (Rump, "Verification of positive definiteness", BIT 46, 2006). Where
      none exists for s > 0 it is 0, as K̄ is a Gram matrix.
    - upper: vᵀ K̄ v / ‖v‖² = Σ_k ‖F_kᵀ diag(v) B_{k+1}‖²_F / ‖v‖² from above, for a v that the
      same factor gives by inverse iteration.

    Memory is O(N² + N · the widths + the weights). Errors grow from layer to layer by ‖W_l‖, or by
    ‖W_l‖_F where n_{l-1} and n_l exceed N, against what the features keep: deep networks can end in
    `UndecidedGate`. Derived here.

    Args:
      params: (W_1, …, W_L); what is no float64 is rounded to one first.
      x: samples, shape (N, d).

    Raises:
      UndecidedGate: the sign of a pre-activation is hidden by rounding.
      RuntimeError: this thread rounds in another way, or flushes subnormal numbers to 0.
    """
    _expect_ieee_arithmetic()
    # in NumPy: JAX's own arithmetic flushes subnormal numbers
    terms, exponent = _terms(list(map(np.asarray, params)), np.asarray(x))
    lower, v = _below(*_kernel(terms))
    root, of_root = math.frexp(_root_of_rayleigh_quotient(terms, v))
    return Enclosure(
        lower=max(_outward(lower, 2 * exponent, -math.inf), 0.0),
        upper=_outward(root**2 * _UP, 2 * (of_root + exponent), math.inf),
    )


def verified_lower_bound(params: Params, x: Float[ArrayLike, "N d"]) -> float:
    """Return the lower end of `verified_bounds`: λ_min(K̄) is at least this, proved."""
    return verified_bounds(params, x).lower


def verified_upper_bound(params: Params, x: Float[ArrayLike, "N d"]) -> float:
    """Return the upper end of `verified_bounds`: λ_min(K̄) is at most this, proved."""
    return verified_bounds(params, x).upper


def what_is_proved(params, x) -> float:
    """The lower end, 0 where a sign is uncertain."""
    try:
        return verified_lower_bound(params, x)
    except UndecidedGate:
        return 0.0


def rounded_down(value: float) -> float:
    """Three digits of a bound, of which the last is not rounded up."""
    digits = Decimal(value)
    return float(digits.quantize(Decimal((0, (1,), digits.adjusted() - 2)), ROUND_FLOOR))


def _expect_ieee_arithmetic() -> None:
    one, tiny = np.array([1.0, -1.0]), np.full((64, 1), 2.0**-537)
    subnormal = np.ones((1, 1), dtype=np.int64).view(np.float64)
    to_nearest = (one + one * _U == one).all() and (one[0] + 2 * _U) + _U == 1 + 4 * _U
    # by their bits: where subnormal numbers count as 0, they are equal to 0
    given = ((tiny @ tiny.T).view(np.int64) == 1).all()
    taken = subnormal @ [[2.0**1000]] == 2.0**-74 == subnormal * 2.0**1000
    if not (to_nearest and given and taken.all()):
        raise RuntimeError(
            "a proof needs arithmetic rounded to nearest, with subnormal numbers: in this thread a "
            "library has switched it off, or JAX, whose callback this is; call it in another one"
        )


def _outward(value: float, exponent: int, direction: float) -> float:
    """The next double beyond value · 2^exponent, which may be none."""
    with np.errstate(over="ignore"):
        return float(np.nextafter(np.ldexp(value, exponent), direction))


# --- from layer to layer: matrices, and how far each row may be from the exact one ----------------


class _Rows(NamedTuple):
    """A computed matrix: row i times 2^exponent_i is the exact one, but for its error."""

    value: np.ndarray
    """shape (N, n)"""
    norm: np.ndarray
    """at least those of the rows, 0 for one that is 0; shape (N,)"""
    error: np.ndarray
    """at least the norms of what separates the rows from the exact ones, 0 for one that is known;
    the larger one of norm and error is about 1, or both are 0; shape (N,)"""
    exponent: np.ndarray
    """shape (N,)"""


def _rows(value, error, exponent) -> _Rows:
    """Rows as they come, brought to a size of about 1."""
    norm = _norms(value)
    shift = np.frexp(np.maximum(norm, error))[1]
    error = np.ldexp(error, -shift) + np.where(norm > 0, _LOST, 0.0)  # of entries far below others
    return _Rows(_times_power(value, -shift), np.ldexp(norm, -shift), error, exponent + shift)


def _times_power(a, exponents):
    """2^e A, e of each row."""
    if np.abs(exponents).max() > 1000:
        return np.ldexp(a, exponents[:, None])
    return a * np.ldexp(1.0, exponents)[:, None]  # much faster


def _exact(value) -> _Rows:
    exponent = np.frexp(np.abs(value).max(axis=1))[1]  # the norm itself may be no double
    return _rows(_times_power(value, -exponent), np.zeros(len(value)), exponent)


def _features(params, x) -> tuple[list[_Rows], list[np.ndarray]]:
    """F_k, k = 0, …, L-1, and the gates of layers 1, …, L-1."""
    features, gates = [_exact(x)], []
    for layer, w in enumerate(params[:-1], start=1):
        g = _product(features[-1], w)
        _expect_decided(g, layer)
        gates.append(g.value > 0)
        features.append(_gated(g, gates[-1]))
    return features, gates


def _backward(params, gates, n_samples) -> list[_Rows]:
    """B_{k+1}, k = 0, …, L-1."""
    backward = [_exact(np.ones((n_samples, 1)))]
    for w, gate in zip(params[:0:-1], gates[::-1], strict=True):
        backward.append(_gated(_product(backward[-1], w.T), gate))
    return backward[::-1]


class _Product(NamedTuple):
    """A W, times powers of two as in `_Rows`.

    Entry i, j is off by (rounding_i + error_i) ‖w_j‖, by nothing if that is 0.
    """

    value: np.ndarray
    rounding: np.ndarray
    """γ ‖a_i‖"""
    error: np.ndarray
    """of the rows of A"""
    of_columns: np.ndarray
    """‖w_j‖"""
    spectral: float
    """‖W‖"""
    exponent: np.ndarray


def _product(a: _Rows, w) -> _Product:
    # a column that is not 0 has a norm with which its error is more than underflow loses
    least = np.where(w.any(axis=0), _LOST, 0.0)
    w, exponent = without_scale(w)
    of_columns = np.maximum(_norms(w.T), least)
    # where it costs little: errors grow with ‖W‖ from layer to layer, or with ‖W‖_F
    spectral = _spectral_norm(w) if min(w.shape) <= len(a.value) else np.inf
    value, rounding = _sum_of_products(a.value, w), _gamma(len(w)) * a.norm
    return _Product(value, rounding, a.error, of_columns, spectral, a.exponent + exponent)


def _gated(product: _Product, gate) -> _Rows:
    """The entries whose gates are open, 0 elsewhere."""
    value, rounding, error, of_columns, spectral, exponent = product
    frobenius = _norms(np.where(gate, of_columns, 0.0))
    is_zero = (rounding + error == 0) | (frobenius == 0)
    error = (rounding * frobenius + error * np.minimum(spectral, frobenius)) * _UP + _LOST
    return _rows(np.where(gate, value, 0.0), np.where(is_zero, 0.0, error), exponent)


def _spectral_norm(w) -> float:
    """At least ‖W‖: ‖W‖⁴ = ‖(Wᵀ W)²‖, which is at most the Frobenius norm of that."""
    w = w if w.shape[0] >= w.shape[1] else w.T
    gram = _sum_of_products(w.T, w)
    square = _frobenius(_sum_of_products(gram.T, gram)) + _gamma(len(gram)) * _frobenius(gram) ** 2
    # an entry of Wᵀ W is off by γ ‖w_i‖ ‖w_j‖, and the sum of the ‖w_i‖² is their trace
    return math.sqrt(math.sqrt(square) + _gamma(len(w)) * np.trace(gram) * _UP) * _UP


def _expect_decided(g: _Product, layer: int) -> None:
    """Raise unless the sign of every pre-activation is certain."""
    of_rows = (g.rounding + g.error) * _UP
    bound = np.outer(of_rows, g.of_columns)
    undecided = np.argwhere((np.abs(g.value) <= bound) & (bound > 0))
    if len(undecided):
        i, j = undecided[0]
        with np.errstate(over="ignore"):
            value, error = np.ldexp([g.value[i, j], bound[i, j]], g.exponent[i])
        raise UndecidedGate(layer, int(i), int(j), value, error, len(undecided) - 1)


def _sum_of_products(a, b):
    """A B, by chunks; BLAS itself sees that B = Aᵀ."""
    return sum(a[:, lo : lo + _CHUNK] @ b[lo : lo + _CHUNK] for lo in _chunks(len(b)))


def _chunks(n: int) -> range:
    return range(0, n, _CHUNK)


def _gamma(n: int, more: int = 0) -> float:
    """γ of an entry of `_sum_of_products`, n the products, and of some roundings more."""
    roundings = min(n, _CHUNK) + len(_chunks(n)) + more
    return roundings * _U / (1 - roundings * _U) * _UP


def _norms(a) -> np.ndarray:
    """Upper bounds on the norms of the rows, of any scale; 0 for a row 0."""
    with np.errstate(over="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", a, a))
    lost = np.flatnonzero(~((norms > 2.0**-400) & (norms < 2.0**400)))  # some squares may be
    largest = np.abs(a[lost]).max(axis=1)
    of_one = np.linalg.norm(a[lost] / np.where(largest, largest, 1)[:, None], axis=1)
    norms[lost] = np.where(largest, np.nextafter(largest * of_one, math.inf), 0.0)
    return norms * (_UP + 2 * a.shape[1] * _U)


def _frobenius(a) -> float:
    """At least ‖A‖_F."""
    return math.hypot(*_norms(a)) * _UP


# --- the kernel: K̄ - K̂ + diag(δ) is positive semidefinite ----------------------------------------


class _Term(NamedTuple):
    """F_k and B_{k+1}, over a power of two that all terms share."""

    f: np.ndarray
    b: np.ndarray
    size: np.ndarray
    """t_i >= ‖f_i‖ ‖b_i‖, exact and computed"""
    error: np.ndarray
    """c_i >= ‖f̂_i b̂_iᵀ - f_i b_iᵀ‖_F"""


def _terms(params, x) -> tuple[list[_Term], int]:
    """The terms k = 0, …, L-1 of K̄ / 4^e, and e."""
    features, gates = _features(params, x)
    pairs = list(zip(features, _backward(params, gates, len(x)), strict=True))
    sizes = [((f.norm + f.error), (b.norm + b.error)) for f, b in pairs]
    exponents = [
        np.where((of_f > 0) & (of_b > 0), f.exponent + b.exponent, _NONE)
        for (f, b), (of_f, of_b) in zip(pairs, sizes, strict=True)
    ]
    largest = int(np.max(exponents))
    terms = []
    for (f, b), (of_f, of_b), exponent in zip(pairs, sizes, exponents, strict=True):
        lost = np.where(exponent > _NONE, _LOST, 0.0)
        size = np.ldexp(of_f * of_b * _UP, exponent - largest) + lost
        error = np.ldexp((f.error * of_b + of_f * b.error) * _UP, exponent - largest) + lost
        terms.append(_Term(_times_power(f.value, exponent - largest), b.value, size, error))
    return terms, largest


def _kernel(terms) -> tuple[np.ndarray, np.ndarray]:
    """K̂ and δ.

    Entry i, j of term k of K̂ is off by γ t_i t_j + t_i c_j + c_i t_j at most, γ for all roundings
    on the way to it; 2 t_i c_j <= η t_i t_j + c_i c_j / η in a quadratic form, and a matrix of
    entries up to p_i p_j is below N diag(p_i²).
    """
    k, delta = 0.0, _LOST
    for f, b, t, c in terms:
        k = k + _sum_of_products(f, f.T) * _sum_of_products(b, b.T)
        gamma = _gamma(f.shape[1]) + _gamma(b.shape[1], len(terms) + 2)
        delta = delta + gamma * t**2
        if c.any():
            eta = c.max() / t.max()
            delta = delta + eta * t**2 + c * (c / eta)
    return k, len(k) * delta * _UP


# --- the two ends ---------------------------------------------------------------------------------


def _below(k, delta) -> tuple[float, np.ndarray]:
    """A number that is proved to be at most λ_min(K̄), or 0, and an approximate eigenvector."""
    diagonal, n = np.diagonal(k), len(k)
    # R Rᵀ is off by γ (a_ii a_jj)^{1/2} / (1 - γ) from the A of which it is the factor (Higham,
    # Theorem 10.3; γ for one rounding more, as BLAS multiplies by reciprocals)
    gamma = (n + 2) * _U / (1 - 2 * (n + 2) * _U)
    delta = (delta + n * gamma * diagonal) * _UP
    shifted = k.copy()
    np.fill_diagonal(shifted, diagonal - delta)
    guess, margin = _smallest(shifted), _U * diagonal.min()
    while (bound := guess - margin) > _LOST:
        np.fill_diagonal(shifted, _less(_less(diagonal, delta), bound))
        try:
            root = scipy.linalg.cholesky(shifted, lower=True, check_finite=False)
        except scipy.linalg.LinAlgError:
            margin *= 8
        else:
            return bound, _smallest_eigenvector(root)
    return 0.0, scipy.linalg.eigh(k, subset_by_index=[0, 0], check_finite=False)[1][:, 0]


def _smallest(a) -> float:
    """λ_min, nothing proved, from the inverse: to many digits too if the rows differ in scale."""
    if len(a) > _SMALL:
        return smallest_eigenvalue(a)  # does the same
    try:
        root = scipy.linalg.cholesky(a, lower=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        return 0.0
    inverse = scipy.linalg.cho_solve((root, True), np.eye(len(a)), check_finite=False)
    return 1 / scipy.linalg.eigvalsh(inverse, check_finite=False)[-1]


def _less(a, b):
    """Return a - b, rounded down."""
    return np.nextafter(a - b, -math.inf)


def _smallest_eigenvector(root) -> np.ndarray:
    """Roughly, by inverse iteration."""
    v = np.random.default_rng(0).normal(size=len(root))
    for _ in range(4):
        v = scipy.linalg.cho_solve((root, True), v / np.abs(v).max(), check_finite=False)
    return v


def _root_of_rayleigh_quotient(terms, v) -> float:
    """√(Σ_k ‖F_kᵀ diag(v) B_{k+1}‖²_F) / ‖v‖ from above: its square is not below λ_min(K̄)."""
    v = v / np.abs(v).max()
    gamma, sizes = _gamma(len(v), 1), []
    for f, b, t, c in terms:
        vb = v[:, None] * b
        parts = (_sum_of_products(f[:, lo : lo + _CHUNK].T, vb) for lo in _chunks(f.shape[1]))
        size = math.hypot(*map(_frobenius, parts))
        sizes.append(size + np.abs(v) @ (gamma * t + c) + _LOST)
    return math.hypot(*sizes) / math.sqrt(v @ v) * _UP
