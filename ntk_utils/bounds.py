"""Bounds on the smallest eigenvalue of the NTK: certificates for one draw, and the theorems' rates.

A *certificate* holds for the given weights and data, without probability or hidden constant:
`schur_lower_bound`, `diagonal_upper_bound`. A function named `nguyen21_…` returns the expression
inside the Ω(·) or O(·) of a theorem of Nguyen, Mondelli, Montúfar, "Tight bounds on the smallest
eigenvalue of the neural tangent kernel for deep ReLU networks" (ICML 2021, arXiv:2012.11654): its
constants are unspecified, so it predicts how λ_min scales, not how large it is.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils.networks import Network, Params, backward, features, is_network
from ntk_utils.spectra import smallest_eigenvalue


@checked(r=_checks.order)
def hermite_coefficient(r: int) -> float:
    """Return the r-th Hermite coefficient of the ReLU, μ_r(σ) = E_{g~N(0,1)}[σ(g) h_r(g)].

        μ_0 = 1/√(2π),  μ_1 = 1/2,  μ_r = 0 for odd r >= 3,
        μ_r = (1/√(2π)) (-1)^{(r-2)/2} (r-3)!! / √(r!) for even r >= 2, with (-1)!! = 1.

    h_r = He_r/√(r!) is the normalised probabilists' Hermite polynomial, and Σ_r μ_r² =
    E[σ(g)²] = 1/2. Theorems 3.2 and 4.1 of arXiv:2012.11654 call it μ_r(σ).

    Args:
      r: order, at least 0.
    """
    if r == 1:
        return 0.5
    if r % 2:
        return 0.0
    if r == 0:
        return 1 / math.sqrt(2 * math.pi)
    # (r-3)!! = (r-2)! / (2^m m!) with m = (r-2)/2, in logarithms, which do not overflow
    m = (r - 2) // 2
    log_size = math.lgamma(r - 1) - m * math.log(2) - math.lgamma(m + 1) - math.lgamma(r + 1) / 2
    return (-1) ** m * math.exp(log_size) / math.sqrt(2 * math.pi)


@checked(params=_checks.weights, x=_checks.inputs)
def schur_terms(params: Params, x: Float[ArrayLike, "N d"]) -> Float[np.ndarray, " L"]:
    """Return what each layer contributes to `schur_lower_bound`.

        λ_min(F_k F_kᵀ) · min_i ‖(B_{k+1})_i:‖²,   k = 0, …, L-1

    Term k bounds the smallest eigenvalue of entry k of `layer_ntks` from below; it is 0 when
    n_k < N.

    Args:
      params: (W_1, …, W_L).
      x: samples, shape (N, d).

    Returns: the L terms, shape (L,).
    """
    grams, rows = _schur_factors(params, x)
    return np.array(
        [_gram_lambda_min(g) * np.asarray(row).min() for g, row in zip(grams, rows, strict=True)]
    )


@jax.jit
def _schur_factors(params, x):
    """F_k F_kᵀ and ‖(B_{k+1})_i:‖² for every i, for k = 0, …, L-1."""
    f = features(params, x)
    return [_gram(f_k) for f_k in f], [jnp.vecdot(b, b) for b in backward(params, f)]


def _gram(f):
    """F Fᵀ, or None where it is singular because F has fewer columns than rows."""
    n_samples, width = f.shape
    return f @ f.T if width >= n_samples else None


def _gram_lambda_min(gram) -> float:
    # a singular Gram matrix gives 0 exactly; a solver would return rounding, of either sign
    return 0.0 if gram is None else max(smallest_eigenvalue(gram), 0.0)


def schur_lower_bound(params: Params, x: Float[ArrayLike, "N d"]) -> float:
    """Lower-bound λ_min(K̄) for these weights and these data.

        λ_min(K̄) >= Σ_{k=0}^{L-1} λ_min(F_k F_kᵀ) · min_i ‖(B_{k+1})_i:‖²

    Certificate: true on every draw, constants explicit. It applies λ_min(A + B) >= λ_min(A) +
    λ_min(B) and Schur's product inequality λ_min(P ∘ Q) >= λ_min(P) min_i Q_ii, for positive
    semidefinite P and Q, to the terms of `empirical_ntk` (arXiv:2405.14630 states it for k = 1).
    It can be positive only if some layer, or the input, has n_k >= N.

    Args:
      params: (W_1, …, W_L).
      x: samples, shape (N, d).

    Returns: the bound, >= 0, in the units of `empirical_ntk`.
    """
    return float(schur_terms(params, x).sum())


@checked(k=_checks.kernel)
def diagonal_upper_bound(k: Float[ArrayLike, "N N"]) -> float:
    """Upper-bound the smallest eigenvalue of a symmetric matrix: λ_min(K) <= min_i K_ii.

    Certificate: true for every symmetric matrix, K̄ and K^(L) alike. For the latter it is
    L · min_i ‖x_i‖².

    Args:
      k: symmetric matrix, shape (N, N), float64.
    """
    return float(np.diagonal(k).min())


def _layer_products(network: Network) -> np.ndarray:
    """∏_{l=1}^{L-1} n_l ∏_{l=1, l≠k+1}^{L} β_l², for k = 0, …, L-1."""
    variances = np.square(network.betas)
    return math.prod(network.widths[1:-1]) * variances.prod() / variances


@checked(network=is_network, x=_checks.inputs)
def mean_layer_diagonals(network: Network, x: Float[ArrayLike, "N d"]) -> Float[Array, "L N"]:
    """Return the exact mean of the diagonal of every layer term over the initial weights.

        E[((F_k F_kᵀ) ∘ (B_{k+1} B_{k+1}ᵀ))_ii] = 2^{-(L-1)} ‖x_i‖² ∏_{l=1}^{L-1} n_l
            ∏_{l=1, l≠k+1}^{L} β_l²,   k = 0, …, L-1

    At finite width, for any widths and betas; derived here: each ReLU halves the second moment,
    forward and backward. Under "lecun" row k is 2^{-(L-1)} n_k ‖x_i‖²/d.

    Args:
      network: widths and betas.
      x: samples, shape (N, d), d = network.widths[0].

    Returns: the means, shape (L, N), row k for entry k of `layer_ntks`.

    Raises:
      ValueError: x does not have network.widths[0] columns.
    """
    _checks.fits_width("x", x, network.widths[0])
    halved = 0.5 ** (network.depth - 1) * _layer_products(network)
    return _checks.on_device(halved[:, None] * (_checks.concrete(x) ** 2).sum(axis=1))


def mean_kernel_diagonal(network: Network, x: Float[ArrayLike, "N d"]) -> Float[Array, " N"]:
    """Return the exact mean of the diagonal of the empirical NTK over the initial weights.

        E[K̄_ii] = 2^{-(L-1)} ‖x_i‖² ∏_{l=1}^{L-1} n_l Σ_{k=0}^{L-1} ∏_{l=1, l≠k+1}^{L} β_l²

    At finite width: the sum of `mean_layer_diagonals` over the layers. Since λ_min(K̄) <= K̄_ii, its
    smallest entry bounds E[λ_min(K̄)] from above with no hidden constant: the upper bound of Theorem
    4.1 of arXiv:2012.11654, in the mean.

    Args:
      network: widths and betas.
      x: samples, shape (N, d), d = network.widths[0].

    Returns: the N means, shape (N,).

    Raises:
      ValueError: x does not have network.widths[0] columns.
    """
    return _checks.on_device(_checks.concrete(mean_layer_diagonals(network, x)).sum(axis=0))


@checked(network=is_network)
def nguyen21_lambda_min_upper(network: Network) -> float:
    """Return the rate of the upper bound of Theorem 4.1 (arXiv:2012.11654).

    With high probability λ_min(K̄) <= O(this):

        Σ_{k=0}^{L-1} d ∏_{l=1}^{L-1} n_l ∏_{l=1, l≠k+1}^{L} β_l²

    Hypotheses: ‖x_i‖ ≈ √d. Constant unspecified in the theorem; `mean_kernel_diagonal` has one,
    2^{-(L-1)}.

    Args:
      network: widths and betas. Under "lecun", term k is n_k and the rate is d + n_1 + … + n_{L-1}.
    """
    return float(network.widths[0] * _layer_products(network).sum())


@checked(network=is_network, x=_checks.inputs, r=_checks.even_order)
def nguyen21_lambda_min_lower(network: Network, x: Float[ArrayLike, "N d"], *, r: int = 2) -> float:
    """Return the rate of the lower bound of Theorem 4.1 (arXiv:2012.11654).

    With high probability λ_min(K̄) >= Ω(this):

        Σ_{k=1}^{L-1} ξ_k μ_r(σ)² d ∏_{l=1}^{L-1} n_l ∏_{l=1, l≠k+1}^{L} β_l²
            + λ_min(X Xᵀ) ∏_{l=1}^{L-1} n_l ∏_{l=2}^{L} β_l²,   ξ_k = 1 if n_k >= N, else 0.

    The theorem asks n_k for N times a power of log N; this drops the logarithms. Hypotheses, none
    of them checked here: i.i.d. rows with ‖x_i‖ ≈ √d and Lipschitz concentration, d at least of
    the order N^{2/(r-0.5)}, widths not exponentially far apart. The constant is unspecified: only
    ratios between networks mean anything.

    Args:
      network: widths and betas.
      x: samples, shape (N, d), d = network.widths[0].
      r: even order of the Hermite coefficient, at least 2: the smaller d is against N, the larger r
        has to be.

    Raises:
      ValueError: x does not have network.widths[0] columns, or r is odd.
    """
    _checks.fits_width("x", x, network.widths[0])
    n_samples, d = x.shape
    products = _layer_products(network)
    is_wide = np.array(network.widths[1:-1]) >= n_samples
    hidden_layers = hermite_coefficient(r) ** 2 * d * (is_wide * products[1:]).sum()
    return float(hidden_layers + _gram_lambda_min(_gram(x)) * products[0])
