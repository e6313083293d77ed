"""Theorem 5.1: how small the singular values of a feature matrix are.

Section 5 of Nguyen, Mondelli, Montúfar, "Tight bounds on the smallest eigenvalue of the neural
tangent kernel for deep ReLU networks" (ICML 2021, arXiv:2012.11654v5), and what it takes to look at
it: Lemmas 5.2 to 5.4, Khatri–Rao powers, and the mean Gram matrix of the next layer.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils._scale import polar
from ntk_utils.bounds.hermite import hermite_coefficient
from ntk_utils.kernels import angles, arc_cosine
from ntk_utils.networks import Network, is_relu_network
from ntk_utils.spectra import (
    ROUNDINGS,
    certain_smallest_eigenvalue,
    rounding_error,
    smallest_eigenvalue,
)

_MOST_COLUMNS = 10**7
_HIGHEST_ORDER = 40


def _is_previous_layer(f, network: Network, k: int) -> None:
    _checks.is_hidden_layer(k, network.depth)
    if f.shape[1] != network.widths[k - 1]:
        raise ValueError(
            f"f: expected {network.widths[k - 1]} columns, the width of layer {k - 1}, "
            f"got shape {f.shape}"
        )


@checked(network=is_relu_network, k=_checks.positive_integer)
def nguyen21_feature_sigma_min_squared(network: Network, k: int) -> float:
    """Return the rate of Theorem 5.1 (arXiv:2012.11654) for the feature matrix F_k.

    With high probability, for every even r >= 2,

        μ_r(σ)² Ω(rate) <= σ_min(F_k)² <= O(rate),   rate = d ∏_{l=1}^k n_l β_l².

    Hypotheses, none of them checked here: i.i.d. rows under Assumptions 2.1 and 2.2 (‖x_i‖ ≈ √d,
    Lipschitz concentration), n_k = Ω(N log N log(N/δ)), ∏_{l=1}^{k-2} log n_l = o(min_{l<k} n_l).
    The probability contains N² exp(-Ω(min_{l<k} n_l / (N^{2/(r/2-0.1)} ∏_{l=1}^{k-2} log n_l))).
    Constants unspecified; `mean_feature_norms_squared` gives the upper one in the mean, 2^{-k}.

    Args:
      network: widths and betas. Under "lecun" the rate is n_k.
      k: hidden layer, 1 <= k <= L-1.

    Raises:
      ValueError: k is no hidden layer.
    """
    _checks.is_hidden_layer(k, network.depth)
    factors = zip(network.widths[1 : k + 1], network.betas[:k], strict=True)
    return network.widths[0] * math.prod(n * beta**2 for n, beta in factors)


@checked(network=is_relu_network, x=_checks.inputs, k=_checks.positive_integer)
def mean_feature_norms_squared(
    network: Network, x: Float[ArrayLike, "N d"], k: int
) -> Float[Array, " N"]:
    """Return the exact mean of ‖f_k(x_i)‖² over the initial weights.

        E‖f_k(x_i)‖² = 2^{-k} ‖x_i‖² ∏_{l=1}^k n_l β_l²

    At finite width; derived here: each ReLU halves the second moment. Since σ_min(F_k)² <=
    ‖f_k(x_i)‖² when n_k >= N, its smallest entry bounds E[σ_min(F_k)²] from above, with no hidden
    constant.

    Args:
      network: widths and betas.
      x: samples, shape (N, d), d = network.widths[0].
      k: hidden layer, 1 <= k <= L-1.

    Returns: the N means, shape (N,).

    Raises:
      ValueError: x does not have network.widths[0] columns, or k is no hidden layer.
    """
    _checks.fits_width("x", x, network.widths[0])
    rate = nguyen21_feature_sigma_min_squared(network, k)
    mean_squares = (_checks.concrete(x) ** 2).mean(axis=1)
    return _checks.on_device(0.5**k * rate * mean_squares)


@checked(network=is_relu_network, f=_checks.inputs, k=_checks.positive_integer)
def mean_feature_gram(
    network: Network, f: Float[ArrayLike, "N _"], k: int
) -> Float[np.ndarray, "N N"]:
    """Return the exact mean of F_k F_kᵀ over the weights W_k alone, given the features F_{k-1}.

        E[F_k F_kᵀ | F_{k-1}]_ij = n_k β_k² E_w[σ(wᵀf_i) σ(wᵀf_j)]
                                 = n_k β_k² ‖f_i‖ ‖f_j‖ (sin θ + (π-θ) cos θ) / (2π)
                                 = n_k β_k² ‖f_i‖ ‖f_j‖ Σ_r μ_r² (cos θ)^r,

    w ~ N(0, I), θ the angle between the rows f_i, f_j of F_{k-1}, μ_r = `hermite_coefficient(r)`.
    λ_min is concave, so E[λ_min(F_k F_kᵀ) | F_{k-1}] is at most the smallest eigenvalue of this
    matrix; it is close to it when n_k is large against N.

    Args:
      network: widths and betas.
      f: the features F_{k-1}, shape (N, n_{k-1}); the samples themselves for k = 1.
      k: hidden layer, 1 <= k <= L-1.

    Returns: the mean, shape (N, N), positive semidefinite. A row of zeros in F_{k-1} gives zeros.

    Raises:
      ValueError: f does not have n_{k-1} columns, or k is no hidden layer.
    """
    _is_previous_layer(f, network, k)
    norms, u = polar(f)
    versine, _ = arc_cosine(angles(u))
    scale = network.widths[k] * network.betas[k - 1] ** 2 / 2
    return scale * np.outer(norms, norms) * (1 - versine)


@checked(network=is_relu_network, f=_checks.inputs, k=_checks.positive_integer)
def mean_feature_gram_lower_bound(network: Network, f: Float[ArrayLike, "N _"], k: int) -> float:
    """Lower-bound the smallest eigenvalue of `mean_feature_gram`, with no hidden constant.

        λ_min(E[F_k F_kᵀ | F_{k-1}])
            >= n_k β_k² min_i ‖f_i‖² Σ_{r=2,4,…,40} μ_r² max(0, γ(U Uᵀ, r), γ(U P Uᵀ, r)),
        γ(Q, r) = min_i (Q_ii^r - Σ_{j≠i} |Q_ij|^r)

    Certificate: true for all weights and data. U has the rows f_i/‖f_i‖, and γ is Gershgorin's
    bound on the r-th Hadamard power, the Gram matrix of `khatri_rao_power`. P projects the mean row
    of U out, see `project_mean_out`. It bounds the mean Gram matrix over W_k, not F_k F_kᵀ itself;
    derived here. What rounding can have added is taken off.

    Args:
      network: widths and betas.
      f: the features F_{k-1}, shape (N, n_{k-1}); the samples themselves for k = 1.
      k: hidden layer, 1 <= k <= L-1.

    Returns: the bound, >= 0; 0 if a row is zero, or two rows are parallel.

    Raises:
      ValueError: f does not have n_{k-1} columns, or k is no hidden layer.
    """
    _is_previous_layer(f, network, k)
    norms, u = polar(f)
    gram, roundings = u @ u.T, 2 * u.shape[1] + 8
    along = u @ _direction_of_mean(u)
    of_raw = _gershgorins(gram, roundings)
    of_projected = _gershgorins(gram - np.outer(along, along), 4 * roundings)
    series = sum(
        hermite_coefficient(r) ** 2 * max(0.0, raw, projected)
        for r, raw, projected in zip(
            range(2, _HIGHEST_ORDER + 1, 2), of_raw, of_projected, strict=True
        )
    )
    scale = network.widths[k] * network.betas[k - 1] ** 2 * norms.min() ** 2
    return float(scale * series * (1 - ROUNDINGS))


@checked(
    network=is_relu_network,
    f=_checks.inputs,
    k=_checks.positive_integer,
    r=_checks.positive_integer,
)
def nguyen21_mean_feature_gram_lower(
    network: Network, f: Float[ArrayLike, "N _"], k: int, *, r: int = 2
) -> float:
    """Lower-bound the smallest eigenvalue of `mean_feature_gram` by one Hadamard power.

        λ_min(E[F_k F_kᵀ | F_{k-1}])
            >= n_k β_k² μ_r(σ)² λ_min((F_{k-1} F_{k-1}ᵀ)^{∘r}) / max_i ‖(F_{k-1})_i:‖^{2(r-1)}

    Certificate: Lemma 5.3 of arXiv:2012.11654v5, deterministic and with explicit constants, in
    which the layers are numbered one lower. It bounds the mean over W_k, not F_k F_kᵀ itself.

    Args:
      network: widths and betas.
      f: the features F_{k-1}, shape (N, n_{k-1}); the samples themselves for k = 1.
      k: hidden layer, 1 <= k <= L-1.
      r: order of the power, at least 1; μ_r = 0 for odd r >= 3.

    Returns: the bound, >= 0.

    Raises:
      ValueError: f does not have n_{k-1} columns, or k is no hidden layer.
    """
    _is_previous_layer(f, network, k)
    norms, u = polar(f)
    largest = norms.max()
    if largest == 0:
        return 0.0
    u = u * (norms / largest)[:, None]  # a power of rows of norm at most 1 does not overflow
    of_power = certain_smallest_eigenvalue((u @ u.T) ** r, r * (2 * u.shape[1] + 16))
    scale = network.widths[k] * network.betas[k - 1] ** 2 * hermite_coefficient(r) ** 2
    return float(scale * largest**2 * of_power)


@checked(
    network=is_relu_network,
    f=_checks.inputs,
    k=_checks.positive_integer,
    delta=_checks.positive_number,
)
def nguyen21_feature_width(
    network: Network, f: Float[ArrayLike, "N _"], k: int, *, delta: float
) -> float:
    """Return how many neurons Lemma 5.2 asks of layer k, with 1 for its unknown constant c.

        max(N, c Q max(1, log 4Q) log(N/δ)),   Q = β_k² ‖F_{k-1}‖_F² / λ,

    λ the smallest eigenvalue of `mean_feature_gram` for one neuron, over n_k. From so many neurons
    on, σ_min(F_k)² >= n_k λ / 4 with probability at least 1 - δ over W_k. Q does not depend on β_k.

    Source: Lemma 5.2 of arXiv:2012.11654v5, in which the layers are numbered one lower.

    Args:
      network: widths and betas; n_k itself plays no role.
      f: the features F_{k-1}, shape (N, n_{k-1}); the samples themselves for k = 1.
      k: hidden layer, 1 <= k <= L-1.
      delta: δ, between 0 and 1.

    Returns: the number; inf where λ is 0 or not told from it (`rounding_error`).

    Raises:
      ValueError: f does not have n_{k-1} columns, k is no hidden layer, δ is not below 1.
    """
    if delta >= 1:
        raise ValueError(f"delta: expected a number between 0 and 1, got {delta}")
    gram = mean_feature_gram(network, f, k)
    smallest = smallest_eigenvalue(gram)
    if smallest <= rounding_error(gram):
        return math.inf
    of_one = smallest / network.widths[k]
    q = network.betas[k - 1] ** 2 * float((f**2).sum()) / of_one
    return max(len(f), q * max(1, math.log(4 * q)) * math.log(len(f) / delta))


@checked(x=_checks.inputs)
def project_mean_out(x: Float[ArrayLike, "N d"]) -> Float[np.ndarray, "N d"]:
    """Project the mean of the rows out of every row: X P, P = I - μ μᵀ/‖μ‖², μ the mean row.

    (X P)(X P)ᵀ is the matrix X̃ X̃ᵀ - Λ 1 1ᵀ Λ/‖μ‖² of Lemma 5.4 of arXiv:2012.11654v5, with X̃ = X -
    1 μᵀ and Λ = diag(X μ - ‖μ‖² 1), written differently. It is a lower bound where centring alone
    is none: X Xᵀ >= X P Xᵀ >= 0, and by Schur's product theorem (X Xᵀ)^{∘r} >= (X P Xᵀ)^{∘r} for
    every r >= 1, in the order of positive semidefinite matrices. The lemma has the mean over the
    law of the samples; any μ other than 0 gives a lower bound.

    Args:
      x: rows, shape (N, d).

    Returns: the projected rows, shape (N, d); x itself where the mean is 0.
    """
    x = np.asarray(x)
    direction = _direction_of_mean(x)
    return x - np.outer(x @ direction, direction)


def _direction_of_mean(x):
    """μ/‖μ‖, μ the mean row; 0 for μ = 0."""
    return polar(x.mean(axis=0, keepdims=True))[1][0]


def _gershgorins(gram, roundings: int) -> list[float]:
    """Gershgorin's lower bound on the Hadamard powers of order 2, 4, …, which have no signs.

    `gram` has entries of size 1 at most, each wrong by `roundings` · 2^-53 at most.
    """
    error = roundings * 2.0**-53
    size = np.abs(gram) + error
    np.fill_diagonal(size, np.maximum(np.diagonal(gram) - error, 0) * (1 - ROUNDINGS))
    powers = itertools.accumulate([size**2] * (_HIGHEST_ORDER // 2), np.multiply)
    return [
        float((2 * np.diagonal(power) - power.sum(axis=1) * (1 + ROUNDINGS)).min())
        for power in powers
    ]


@checked(x=_checks.inputs, r=_checks.positive_integer)
def khatri_rao_power(x: Float[ArrayLike, "N d"], r: int) -> Float[Array, "N _"]:
    """Return the r-fold row-wise Khatri–Rao power X^{*r}: row i is x_i ⊗ … ⊗ x_i, r times.

    Its Gram matrix is the r-th Hadamard power, X^{*r} (X^{*r})ᵀ = (X Xᵀ)^{∘r}, whose entries are
    ⟨x_i, x_j⟩^r: this is where off-diagonal entries become small. The power has d^r columns; where
    the Gram matrix is all that is wanted, `(x @ x.T) ** r` needs none of them.

    Args:
      x: rows, shape (N, d).
      r: number of factors, at least 1.

    Returns: the power, shape (N, d^r).

    Raises:
      ValueError: d^r is larger than 10^7.
    """
    n_samples, d = x.shape
    if d**r > _MOST_COLUMNS:
        raise ValueError(
            f"r: expected at most {_MOST_COLUMNS} columns d^r, got {d}^{r}; "
            "the Gram matrix is (x @ x.T) ** r"
        )

    def append_factor(power, _):
        return (power[:, :, None] * x[:, None, :]).reshape(n_samples, -1)

    return functools.reduce(append_factor, range(r - 1), x)
