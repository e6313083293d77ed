"""Theorem 4.1: the smallest eigenvalue of the NTK of a network of finite width.

A *certificate* holds for the given weights and data, without probability or hidden constant:
`sandwich`, `schur_lower_bound`, `diagonal_upper_bound`. A function named `nguyen21_…` returns the
expression inside the Ω(·) or O(·) of a theorem of Nguyen, Mondelli, Montúfar, "Tight bounds on the
smallest eigenvalue of the neural tangent kernel for deep ReLU networks" (ICML 2021,
arXiv:2012.11654v5): its constants are unspecified, so it predicts how λ_min scales, not how large
it is.
"""

from __future__ import annotations

import functools
from typing import NamedTuple, SupportsIndex

import jax
import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils._scale import without_scale
from ntk_utils.activations import Activation, is_activation, relu
from ntk_utils.bounds.hermite import hermite_coefficient
from ntk_utils.kernels import (
    kernel_and_factors,
    layer_ntks,
    layer_products,
    limiting_layer_ntks,
    limiting_ntk,
    row_blocks,
)
from ntk_utils.networks import (
    Network,
    Params,
    backward_matrices,
    feature_matrices,
    features_and_backward,
    init_params,
    is_relu_network,
    without_compiling,
)
from ntk_utils.spectra import (
    ROUNDINGS,
    certain_smallest_eigenvalue,
    rounding_error,
    smallest_eigenvalue,
)


class Sandwich(NamedTuple):
    """λ_min(K̄) of one draw between its two certificates, and what they consist of.

    All in the units of `empirical_ntk`. `sweep` takes it as the result of a measurement, one column
    a number: lower, lambda_min, upper, rounding, feature_factors_0, feature_factors_1, …
    """

    lower: float
    """`schur_lower_bound`: Σ_k feature_factors[k] · gradient_factors[k]"""
    lambda_min: float
    """the smallest eigenvalue of K̄"""
    upper: float
    """min_i K̄_ii"""
    rounding: float
    """`rounding_error` of K̄: what is below it is 0 as far as one can tell"""
    feature_factors: Float[np.ndarray, " L"]
    """λ_min(F_k F_kᵀ) less what rounding can have added, k = 0, …, L-1; 0 where n_k < N"""
    gradient_factors: Float[np.ndarray, " L"]
    """min_i ‖(B_{k+1})_i:‖², k = 0, …, L-1"""


@checked(params=_checks.weights, x=_checks.inputs, activation=is_activation)
def sandwich(
    params: Params, x: Float[ArrayLike, "N d"], *, activation: Activation = relu
) -> Sandwich:
    """Compute λ_min(K̄) and the two certificates that enclose it, in one pass through the network.

        Σ_{k=0}^{L-1} λ_min(F_k F_kᵀ) · min_i ‖(B_{k+1})_i:‖²  <=  λ_min(K̄)  <=  min_i K̄_ii

    True on every draw; see `schur_lower_bound` and `diagonal_upper_bound`. Both leave room for the
    rounding of their own sums, products and eigenvalues, at most a relative 1e-9 of the upper one;
    that of the features and of the gradients before them is not covered.

    Args:
      params: (W_1, …, W_L).
      x: samples, shape (N, d).
      activation: σ.
    """
    x, exponent = _without_scale(x, activation)
    scale = np.ldexp(1.0, 2 * exponent)
    k, feature_factors, gradient_factors = kernel_and_schur_factors(params, x, activation)
    return Sandwich(
        lower=float(feature_factors @ gradient_factors * scale),
        lambda_min=float(smallest_eigenvalue(k) * scale),
        upper=float(diagonal_upper_bound(k) * (1 + ROUNDINGS) * scale),
        rounding=float(rounding_error(k) * scale),
        feature_factors=feature_factors * scale,
        gradient_factors=gradient_factors,
    )


def _without_scale(x, activation) -> tuple[np.ndarray, int]:
    """Return x / 2^e, and e: K̄ of ReLU networks is homogeneous in x, of degree 2; else e = 0."""
    return without_scale(x) if activation is relu else (np.asarray(x), 0)


@checked(params=_checks.weights, x=_checks.inputs, activation=is_activation)
def schur_terms(
    params: Params, x: Float[ArrayLike, "N d"], *, activation: Activation = relu
) -> Float[np.ndarray, " L"]:
    """Return what each layer contributes to `schur_lower_bound`.

        λ_min(F_k F_kᵀ) · min_i ‖(B_{k+1})_i:‖²,   k = 0, …, L-1

    Term k bounds the smallest eigenvalue of entry k of `layer_ntks` from below; it is 0 when
    n_k < N.

    Args:
      params: (W_1, …, W_L).
      x: samples, shape (N, d).
      activation: σ.

    Returns: the L terms, shape (L,).
    """
    x, exponent = _without_scale(x, activation)
    factors = _smallest(params, *without_compiling(_factors, params, x, activation))
    return np.ldexp(np.prod(factors, axis=0), 2 * exponent)


def kernel_and_schur_factors(params, x, activation=relu):
    """K̄ and the two Schur factors of every layer, in one pass through the network; unchecked."""
    blocks = row_blocks(len(x))
    k, grams, rows = without_compiling(kernel_and_factors, params, x, blocks, activation)
    return k, *_smallest(params, grams, rows)


@functools.partial(jax.jit, static_argnums=2)
def _factors(params, x, activation):
    """F_k F_kᵀ (None where n_k < N) and ‖(B_{k+1})_i:‖² for every i, for k = 0, …, L-1."""
    f, b = features_and_backward(params, x, activation)
    return [_gram(f_k) for f_k in f], [(b_k**2).sum(axis=1) for b_k in b]


def _gram(f):
    """F Fᵀ, or None where it is singular because F has fewer columns than rows."""
    n_samples, width = f.shape
    return f @ f.T if width >= n_samples else None


def _smallest(params, grams, rows):
    """The two Schur factors of every layer: smallest eigenvalues, and smallest squared rows."""
    widths = [len(w) for w in params]  # so many products in an entry of F_k F_kᵀ
    return (
        np.array([_gram_lambda_min(*of_layer) for of_layer in zip(grams, widths, strict=True)]),
        np.array([np.asarray(row).min() for row in rows]),  # its rounding is taken off the other
    )


def _gram_lambda_min(gram, width: int) -> float:
    return 0.0 if gram is None else certain_smallest_eigenvalue(np.asarray(gram), width)


def schur_lower_bound(
    params: Params, x: Float[ArrayLike, "N d"], *, activation: Activation = relu
) -> float:
    """Lower-bound λ_min(K̄) for these weights and these data.

        λ_min(K̄) >= Σ_{k=0}^{L-1} λ_min(F_k F_kᵀ) · min_i ‖(B_{k+1})_i:‖²

    Certificate: true on every draw, constants explicit. It applies λ_min(A + B) >= λ_min(A) +
    λ_min(B) and Schur's product inequality λ_min(P ∘ Q) >= λ_min(P) min_i Q_ii, for positive
    semidefinite P and Q, to the terms of `empirical_ntk`; derived here (arXiv:2405.14630 states the
    term k = 1). It can be positive only if some layer, or the input, has n_k >= N. `sandwich` gives
    λ_min as well, at little more than the cost of this.

    Args:
      params: (W_1, …, W_L).
      x: samples, shape (N, d).
      activation: σ.

    Returns: the bound, >= 0, in the units of `empirical_ntk`.
    """
    return float(schur_terms(params, x, activation=activation).sum())


@checked(params=_checks.weights, x=_checks.inputs, activation=is_activation)
def layer_shares(
    params: Params, x: Float[ArrayLike, "N d"], *, activation: Activation = relu
) -> Float[np.ndarray, " L"]:
    """Return the share of each layer term in the smallest eigenvalue of the empirical NTK.

        vᵀ T_k v / λ_min(K̄),   λ_min(K̄) = vᵀ K̄ v = Σ_{k=0}^{L-1} vᵀ T_k v,

    v the unit eigenvector of λ_min, T_k the entries of `layer_ntks`. They are >= 0 and sum to 1.

    Args:
      params: (W_1, …, W_L).
      x: samples, shape (N, d).
      activation: σ.

    Returns: the L shares, shape (L,); nan where λ_min is not above rounding, which has no shares.
    """
    x, _ = _without_scale(x, activation)
    return _shares(np.asarray(layer_ntks(params, x, activation=activation)))


@checked(x=_checks.inputs, depth=_checks.positive_integer)
def limiting_layer_shares(x: Float[ArrayLike, "N d"], *, depth: int) -> Float[np.ndarray, " L"]:
    """Return the share of each layer term in the smallest eigenvalue of the limiting NTK.

    `layer_shares` for the terms of `limiting_layer_ntks`: what it tends to, for weights of variance
    1, when all widths grow and λ_min(K^(L)) is a simple eigenvalue.

    Args:
      x: samples, shape (N, d).
      depth: the number L of weight matrices, at least 1.

    Returns: the L shares, shape (L,); nan where λ_min is not above rounding.
    """
    return _shares(limiting_layer_ntks(without_scale(x)[0], depth=depth))


def _shares(terms):
    """vᵀ T_k v / λ_min, v the unit eigenvector of the smallest eigenvalue of Σ_k T_k."""
    k = terms.sum(axis=0)
    (lambda_min,), v = scipy.linalg.eigh(k, subset_by_index=[0, 0], check_finite=False)
    parts = np.einsum("ia,kij,ja->k", v, terms, v, optimize=True)
    return parts / lambda_min if lambda_min > rounding_error(k) else np.full(len(terms), np.nan)


@checked(k=_checks.kernel)
def diagonal_upper_bound(k: Float[ArrayLike, "N N"]) -> float:
    """Upper-bound the smallest eigenvalue of a symmetric matrix: λ_min(K) <= min_i K_ii.

    Certificate: true for every symmetric matrix, K̄ and K^(L) alike. For the latter it is
    L · min_i ‖x_i‖².

    Args:
      k: symmetric matrix, shape (N, N), float64.
    """
    return float(np.diagonal(k).min())


@checked(network=is_relu_network, x=_checks.inputs)
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
    halved = 0.5 ** (network.depth - 1) * layer_products(network)
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


@checked(network=is_relu_network)
def kernel_diagonal_deviation(network: Network) -> float:
    """Return the exact standard deviation of K̄_ii over its mean, at any width, for any x_i ≠ 0.

    By rotation invariance, K̄_ii / ‖x_i‖² ∏_l β_l² has the law of

        Σ_{k=0}^{L-1} β_{k+1}^{-2} ∏_{j<=k} X_j
            · (∏_{j>k} Y_j + z² Σ_{s>k} ∏_{k<j<s} Y_j ∏_{j>s} X_j),   j and s up to L-1,

    X_j ~ χ²_m, Y_j ~ χ²_{m-1}, m ~ Binomial(n_j, 1/2) the number of active neurons of layer j, z ~
    N(0, 1), all independent (the sum is 0 if an m is). X_j is what layer j does to the squared
    length of f_{j-1}; the gradient in f_j has a part along f_j, which z gives, and Y_j comes from
    the rest. For equal betas: √(3/n_1) for L = 2, and √(29/n_1 + 29/n_2 + 113/(n_1 n_2)) / 3 for
    L = 3. Derived here.

    Args:
      network: widths and betas; that there are no biases matters.
    """
    weights = 1 / np.square(network.betas)
    # a product passes the layers before the sum, among the Y_j, or after s; step[from, to, which]:
    # the factor X, Y or 1 that it takes along. The moments are those of two products at once.
    step, moments = np.zeros((3, 3, 3)), np.zeros((3, 3))
    step[0, 0, 0] = step[1, 1, 1] = step[1, 2, 2] = step[2, 2, 0] = moments[0, 0] = 1
    for n, weight in zip(network.widths[1:-1], weights, strict=False):
        step[0, 1, 1] = step[0, 2, 2] = weight
        dead = 0.5**n
        x, y = n / 2, n / 2 - 1 + dead
        xx, xy, yy = (n * n + 5 * n) / 4, (n * n - n) / 4, (n * n + n) / 4 - 1 + dead
        products = (2 / n) ** 2 * np.array([[xx, xy, x], [xy, yy, y], [x, y, 1 - dead]])
        moments = np.einsum("ab,acs,bdt,st->cd", moments, step, step, products)
    ends = np.array([weights[-1], 1, 1])
    of_z = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 3]])  # E[z²] = 1, E[z⁴] = 3
    second_moment = (moments * np.outer(ends, ends) * of_z).sum()
    return float(np.sqrt(max(second_moment / weights.sum() ** 2 - 1, 0.0)))


class GapCoefficients(NamedTuple):
    """Coefficients of the mean square of λ_min(K̂)/λ_min(K) - 1, about a/n + b (N/n)²."""

    a: float
    """of the fluctuation: Var(u_1ᵀ M u_1) / λ_1²"""
    b: float
    """of the push by the other eigenvalues: (Σ_{j>1} Var(u_jᵀ M u_1) / (λ_1 (λ_j - λ_1)) / N)²"""
    n_0: float
    """Var(u_2ᵀ M u_1) / (λ_2 - λ_1)²: at smaller widths the two lowest eigenvectors mix"""


@checked(x=_checks.samples, key=_checks.random_key, n_neurons=_checks.positive_integer)
def two_layer_gap_coefficients(
    x: Float[ArrayLike, "N d"], key: Key[Array, ""], *, n_neurons: SupportsIndex = 50_000
) -> GapCoefficients:
    """Predict how far λ_min of a two-layer network of n neurons is from its limit.

    K̂ = (2/n) K̄ is an average of n independent contributions M of one neuron, with mean K =
    `limiting_ntk`; λ_1 < λ_2 <= … and u_j are the eigenvalues and eigenvectors of K. To second
    order in K̂ - K,

        λ_min(K̂) ≈ λ_1 + u_1ᵀ (K̂ - K) u_1 - Σ_{j>1} (u_jᵀ (K̂ - K) u_1)² / (λ_j - λ_1).

    A heuristic: no remainder is bounded. It needs n well above N and n_0. Derived here.

    Args:
      x: samples, shape (N, d), at least two, no two of them parallel.
      key: a random key of JAX, for the neurons from which the variances are estimated.
      n_neurons: their number; the relative standard error of a is about 5/√n_neurons.

    Raises:
      ValueError: there is only one sample; λ_1 is rounding, or it is not a simple eigenvalue.
    """
    x, limit = _checks.concrete(x), limiting_ntk(x, depth=2)
    eigenvalues, u = np.linalg.eigh(limit)
    if not min(eigenvalues[0], eigenvalues[1] - eigenvalues[0]) > rounding_error(limit):
        raise ValueError(
            "x: expected samples whose limiting NTK has a simple smallest eigenvalue above "
            f"rounding, got {eigenvalues[0]:.3g} and {eigenvalues[1]:.3g}"
        )
    params = init_params(Network((x.shape[1], n_neurons, 1), init=(1.0, 1.0)), key)
    f = np.asarray(feature_matrices(params, x)[1])
    b = np.asarray(backward_matrices(params, x)[0])
    m_u = 2 * (f * (u[:, 0] @ f) + b * (x @ x.T @ (b * u[:, :1])))  # column: M u_1 of one neuron
    variances, spacing = (u.T @ m_u).var(axis=1), eigenvalues[1:] - eigenvalues[0]
    push = (variances[1:] / spacing).sum() / eigenvalues[0]
    return GapCoefficients(
        a=float(variances[0] / eigenvalues[0] ** 2),
        b=float((push / len(x)) ** 2),
        n_0=float(variances[1] / spacing[0] ** 2),
    )


@checked(network=is_relu_network, n_samples=_checks.positive_integer)
def mean_dead_samples(network: Network, n_samples: SupportsIndex) -> float:
    """Return the exact mean number of dead samples over the initial weights.

        E #{i : f_l(x_i) = 0 for some l} = N (1 - ∏_{l=1}^{L-1} (1 - 2^{-n_l})),

    for any data without a zero row and for any betas, at finite width; derived here. Given a
    non-zero input to layer l, its n_l pre-activations are positive with probability 1/2 each,
    independently: all are off with probability 2^{-n_l}. A dead sample has output and gradient 0, a
    zero row in `empirical_ntk`, and thus λ_min(K̄) = 0: Markov's inequality bounds the probability
    of one by this mean. It is a part of the term N Σ_l e^{-Ω(n_l)} in the failure probability of
    Theorem 4.1.

    Args:
      network: widths.
      n_samples: the number N of samples.
    """
    dead = 0.0  # the probability, after each layer
    for n in network.widths[1:-1]:
        dead += (1 - dead) * 0.5**n
    return n_samples * dead


@checked(network=is_relu_network)
def nguyen21_lambda_min_upper(network: Network) -> float:
    """Return the rate of the upper bound of Theorem 4.1 (arXiv:2012.11654).

    With high probability λ_min(K̄) <= O(this):

        Σ_{k=0}^{L-1} d ∏_{l=1}^{L-1} n_l ∏_{l=1, l≠k+1}^{L} β_l²

    Hypotheses: ‖x_i‖ ≈ √d. Constant unspecified in the theorem; `mean_kernel_diagonal` has one,
    2^{-(L-1)}.

    Args:
      network: widths and betas. Under "lecun", term k is n_k and the rate is d + n_1 + … + n_{L-1}.
    """
    return float(network.widths[0] * layer_products(network).sum())


@checked(network=is_relu_network, x=_checks.inputs, r=_checks.even_order)
def nguyen21_lambda_min_lower(network: Network, x: Float[ArrayLike, "N d"], *, r: int = 2) -> float:
    """Return the rate of the lower bound of Theorem 4.1 (arXiv:2012.11654).

    With high probability λ_min(K̄) >= Ω(this):

        Σ_{k=1}^{L-1} ξ_k μ_r(σ)² d ∏_{l=1}^{L-1} n_l ∏_{l=1, l≠k+1}^{L} β_l²
            + λ_min(X Xᵀ) ∏_{l=1}^{L-1} n_l ∏_{l=2}^{L} β_l²,   ξ_k = 1 if n_k >= N, else 0.

    The theorem has ξ_k = 1 if n_k = Ω(N log N log(N/δ)) and ∏_{l=1}^{k-2} log n_l =
    o(min_{l<k} n_l); this drops the logarithms. Hypotheses, none of them checked here: i.i.d. rows
    under Assumptions 2.1 and 2.2 (‖x_i‖ ≈ √d, Lipschitz concentration), constant L. The probability
    contains ξ_k N² exp(-Ω(min_{l<k} n_l / (N^{2/(r/2-0.1)} ∏_{l=1}^{k-2} log n_l))), so that r has
    to grow as the layers before k, or d, become small against N. The constant is unspecified: only
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
    products = layer_products(network)
    is_wide = np.array(network.widths[1:-1]) >= n_samples
    hidden_layers = hermite_coefficient(r) ** 2 * d * (is_wide * products[1:]).sum()
    return float(hidden_layers + _gram_lambda_min(_gram(x), d) * products[0])
