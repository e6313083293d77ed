"""The limiting NTK as a power series of the cosines, and the bounds on λ_min(K^(L)) it gives.

Write x_i = ‖x_i‖ u_i and c_ij = ⟨u_i, u_j⟩. The limiting kernel of a ReLU network is

    K^(L)_ij = ‖x_i‖ ‖x_j‖ κ_L(c_ij),   κ_L(c) = Σ_p b_{L,p} c^p,   b_{L,p} >= 0,   κ_L(1) = L,

a sum of Hadamard powers C^{∘p} of the cosine matrix, each positive semidefinite with unit diagonal.
A bound on the smallest eigenvalue of each power is a bound on λ_min(K^(L)), on every data set.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils._scale import polar
from ntk_utils.bounds.hermite import hermite_coefficient
from ntk_utils.spectra import ROUNDINGS, certain_smallest_eigenvalue


@checked(depth=_checks.positive_integer, n_terms=_checks.positive_integer)
def limiting_power_series(depth: int, n_terms: int) -> Float[np.ndarray, " n_terms"]:
    """Return the first coefficients of the limiting NTK as a power series of the cosine.

        κ_L(c) = Σ_p b_{L,p} c^p,   κ_1 = g_1 = c,   g_l = φ(g_{l-1}),
        κ_l = κ_{l-1} φ'(g_{l-1}) + g_l,
        φ(c) = (√(1-c²) + (π - arccos c) c)/π = Σ_r 2 μ_r(σ)² c^r.

    All coefficients are non-negative and they sum to L; what is left beyond the first P falls like
    P^{-1/2}. Known: b_1 = (0, 1, 0, …) and b_{2,p} = 2 (p+1) μ_p(σ)². The coefficients are those of
    the full series: nothing is lost by truncation, and only sums of positive terms are formed.

    Source: the recursion of Lemma 3.1 of arXiv:2012.11654 for samples of norm 1; its expansion is
      derived here.

    Args:
      depth: the number L of weight matrices, at least 1.
      n_terms: how many coefficients, at least 1.

    Returns: b_{L,0}, …, b_{L,n_terms-1}, shape (n_terms,).
    """
    return _coefficients(depth, n_terms).copy()


@functools.cache
def _coefficients(depth, n_terms):
    cosine = np.zeros(max(n_terms, 2))
    cosine[1] = 1.0
    g = kappa = cosine
    for _ in range(depth - 1):
        derivative, g = _arc_cosine(g)
        kappa = _product(kappa, derivative) + g
    return kappa[:n_terms]


def _arc_cosine(g):
    """The series of φ'(g) and of φ(g), for a series g with 0 <= g(0) < 1.

    By integration of φ'(g)' = g'/(π √(1-g²)) and φ(g)' = φ'(g) g': composing truncated series
    would miss what the powers beyond the truncation add through g(0).
    """
    slope = g[1:] * np.arange(1, len(g))
    angle = math.acos(g[0])
    root = _inverse_square_root_of_one_minus(_product(g, g))
    derivative = _integral(_product(slope, root) / math.pi, start=1 - angle / math.pi)
    value_at_0 = (math.sin(angle) + (math.pi - angle) * g[0]) / math.pi
    return derivative, _integral(_product(slope, derivative), start=value_at_0)


def _product(a, b):
    return np.convolve(a, b)[: len(a)]


def _integral(a, *, start):
    return np.concatenate([[start], a / np.arange(1, len(a) + 1)])


def _inverse_square_root_of_one_minus(a):
    """The series y of (1-a)^{-1/2}, from 2 (1-a) y' = a' y."""
    y = np.zeros_like(a)
    y[0] = (1 - a[0]) ** -0.5
    for n in range(1, len(a)):
        k = np.arange(1, n + 1)
        y[n] = ((n - k / 2) * a[k] * y[n - k]).sum() / (n * (1 - a[0]))
    return y


@checked(
    x=_checks.inputs,
    depth=_checks.positive_integer,
    n_terms=_checks.positive_integer,
    exact_orders=_checks.order,
)
def limiting_lower_bound(
    x: Float[ArrayLike, "N d"], *, depth: int, n_terms: int = 200, exact_orders: int = 0
) -> float:
    """Lower-bound λ_min(K^(L)) for these data.

        λ_min(K^(L)) >= min_i ‖x_i‖² Σ_p b_{L,p} max(0, 1 - max_i Σ_{j≠i} |c_ij|^p)

    Certificate: true on every data set, constants explicit, no probability. Derived here:
    Gershgorin's theorem on each Hadamard power C^{∘p} of the cosine matrix, and
    λ_min(D A D) >= min_i D_ii² λ_min(A) for A positive semidefinite. The powers beyond `n_terms`
    enter with the value of the last one, because no bound in the sum falls with p: nor does
    λ_min(C^{∘p}) itself, by Schur's product inequality. What rounding can have added is taken off:
    at most 1e-9 of L · min_i ‖x_i‖².

    On orthogonal samples of equal norm it is exact; two parallel samples that point the same way
    take it to 0, as they take λ_min.

    Args:
      x: samples, shape (N, d). A zero row gives 0.
      depth: the number L of weight matrices, at least 1.
      n_terms: how many powers are bounded one by one; more of them help when some cosine is close
        to 1.
      exact_orders: λ_min(C^{∘p}) is computed instead of bounded for p = 1, …, exact_orders, unless
        N exceeds C(d+p-1, p), the largest rank of C^{∘p}, and it is 0. Each costs an eigenvalue of
        an N × N matrix; the first one that is not 0 gains the most.

    Returns: the bound, in the units of `limiting_ntk`, where K^(L)_ii = L ‖x_i‖².
    """
    norms, u = polar(x)
    b = limiting_power_series(depth, n_terms)
    n_samples, d = x.shape
    exact = [p for p in range(1, exact_orders + 1) if math.comb(d + p - 1, p) >= n_samples]
    eigenvalues = _hadamard_power_bounds(u, n_terms, exact)
    tail = depth - b.sum() - (depth - 1) * ROUNDINGS  # b may be too small by so much
    total = max(b @ eigenvalues + tail * eigenvalues[-1], 0.0)
    return float(norms.min() ** 2 * total * (1 - ROUNDINGS))


@checked(x=_checks.inputs, r=_checks.even_order)
def nguyen21_limiting_lower(x: Float[ArrayLike, "N d"], *, r: int) -> float:
    """Lower-bound λ_min(K^(L)) for these data by one Hermite coefficient, for every L >= 2.

        λ_min(K^(L)) >= 2 μ_r(σ)² min_i ‖x_i‖² max(0, 1 - max_i Σ_{j≠i} |c_ij|^r)

    Following Theorem 3.2 of arXiv:2012.11654, λ_min(K^(L)) >= μ_r(σ)² Ω(d), whose constant is
    unspecified. This one is derived here and makes it a certificate, true on every data set:
    K^(L) ⪰ Σ_l G^(l) ∘ Ġ^(l+1) ∘ … ∘ Ġ^(L) with (Ġ^(l))_ii = 1, so by Schur's product inequality
    λ_min(K^(L)) >= λ_min(G^(2)); G^(2)_ij = ‖x_i‖ ‖x_j‖ Σ_p 2 μ_p² c_ij^p, of which the term p = r
    is kept and bounded by Gershgorin's theorem. It is never above `limiting_lower_bound` (when r is
    below its `n_terms`), because 2 μ_r² <= b_{L,r}, up to the 1e-9 of it that is taken off for
    rounding.

    Args:
      x: samples, shape (N, d). A zero row gives 0.
      r: even order, at least 2. For independent, centred samples the last factor is positive once d
        is large against N^{2/r}, up to logarithms.

    Returns: the bound, in the units of `limiting_ntk`.
    """
    norms, u = polar(x)
    gershgorin = 1 - (_largest_off_diagonal(u) ** r).sum(axis=1).max() * (1 + ROUNDINGS)
    scale = 2 * hermite_coefficient(r) ** 2 * norms.min() ** 2
    return float(scale * max(gershgorin, 0.0) * (1 - ROUNDINGS))


@checked(x=_checks.inputs, depth=_checks.positive_integer)
def limiting_rank_upper_bound(x: Float[ArrayLike, "N d"], *, depth: int) -> float:
    """Upper-bound λ_min(K^(L)) for these data by their number and their dimension.

        λ_min(K^(L)) <= max_i ‖x_i‖² min_k T_k N / (N - C(d+k, k)),   T_k = L - Σ_{p<=k} b_{L,p},

    the minimum over all k >= 0 with C(d+k, k) < N; a single sample gives L ‖x_1‖².

    Certificate: true on every data set. Derived here: the powers p <= k of the cosine matrix have
    together at most the rank C(d+k, k), the number of monomials of degree up to k. On the vectors
    that they annihilate only the other powers act, whose trace is N T_k; and
    λ_min(D A D) <= max_i D_ii² λ_min(A) for A positive semidefinite. At fixed d it falls to 0 as N
    grows, as T_k does.

    Args:
      x: samples, shape (N, d).
      depth: the number L of weight matrices, at least 1.

    Returns: the bound, in the units of `limiting_ntk`.
    """
    n_samples, d = x.shape
    ranks = []
    while (rank := math.comb(d + len(ranks), d)) < n_samples:
        ranks.append(rank)
    largest_squared_norm = polar(x)[0].max() ** 2 * (1 + ROUNDINGS)
    if not ranks:
        return float(depth * largest_squared_norm)
    tails = depth - np.cumsum(limiting_power_series(depth, len(ranks)))
    tails = np.maximum(tails, 0) + (depth - 1) * ROUNDINGS  # for depth 1 the series is exact
    return float(largest_squared_norm * (tails * n_samples / (n_samples - np.array(ranks))).min())


def _largest_off_diagonal(u):
    """What |c_ij| can be at most, i ≠ j, before rounding; 0 on the diagonal."""
    roundings = 2 * u.shape[1] + 8  # d in the product, and d/2 + 4 in each of the two norms
    size = np.minimum(np.abs(u @ u.T) + roundings * 2.0**-53, 1)
    np.fill_diagonal(size, 0)
    return size


def _hadamard_power_bounds(u, n_terms, exact):
    """Lower bounds on λ_min(C^{∘p}) for p = 0, …, n_terms - 1; they never fall with p."""
    bounds = 1 - _largest_power_sums(_largest_off_diagonal(u), n_terms) * (1 + ROUNDINGS)
    bounds[0] = len(u) == 1
    for p in exact:
        if p < n_terms and bounds[p] < 1:
            of_power = certain_smallest_eigenvalue((u @ u.T) ** p, p * (2 * u.shape[1] + 8))
            bounds[p] = max(bounds[p], of_power)
    return np.maximum.accumulate(bounds)


_CACHED = 2**14  # entries of the rows that are raised to all powers before the next: 128 KiB


def _largest_power_sums(size, n_terms):
    """max_i Σ_j size_ij^p for p = 0, …, n_terms - 1; 0 where that is below rounding."""
    largest = np.zeros(n_terms)
    at_once = max(1, _CACHED // len(size))
    for rows in (size[lo : lo + at_once] for lo in range(0, len(size), at_once)):
        power = np.ones_like(rows)
        for p in range(1, n_terms):
            power *= rows
            of_rows = power.sum(axis=1).max()
            if 1 - of_rows == 1:  # the rest is less than rounding, and would underflow
                break
            largest[p] = max(largest[p], of_rows)
    return largest
