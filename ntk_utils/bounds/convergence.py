"""What is proved about gradient descent and flow: when they converge, how fast, what they predict.

Each function computes, from weights, samples and labels, the two sides or the number that a
statement is about; whether it holds along a path is for `training.gradient_descent` to show. The
loss is Φ = ½ ‖f(X) - y‖².
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, SupportsFloat

import numpy as np
import scipy.linalg
import scipy.optimize
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils._scale import polar
from ntk_utils.activations import Activation, is_activation, slopes
from ntk_utils.kernels import limiting_layer_ntks
from ntk_utils.networks import Params, apply, feature_matrices
from ntk_utils.spectra import rounding_error, smallest_singular_value, spectrum


class Convergence(NamedTuple):
    """The conditions of a convergence theorem on the weights to start from, and what they give."""

    left: Float[np.ndarray, " conditions"]
    """the left sides; condition i holds if left_i >= right_i"""
    right: Float[np.ndarray, " conditions"]
    """the right sides"""
    largest_step: float
    """the step size below which the theorem speaks"""
    rate: float
    """ρ, of Φ_k <= (1 - η ρ)^k Φ_0"""

    @property
    def holds(self) -> bool:
        """Whether all conditions hold."""
        return bool((self.left >= self.right).all())


@checked(params=_checks.weights, x=_checks.inputs, y=_checks.labels)
def nguyen21_convergence(
    params: Params,
    x: Float[ArrayLike, "N d"],
    y: Float[ArrayLike, " N"],
    room: Sequence[SupportsFloat] | None = None,
) -> Convergence:
    """Compute the conditions under which gradient descent on a deep ReLU network converges.

    With α = σ_min(F_{L-1}) of the last hidden layer, λ̄_l = ‖W_l‖ + C_l for any C_l > 0, and
    λ̄_{1..m} = ∏_{l<=m} λ̄_l, all at the weights to start from, they are

        α² >= 16 ‖X‖_F max_l λ̄_{1..L}/(λ̄_l C_l) · √(2Φ_0),
        α³ >= 32 ‖X‖_F² λ̄_L Σ_{l<L} λ̄_{1..L-1}²/λ̄_l² · √(2Φ_0),
        α² >= 16 ‖X‖_F² λ̄_L² Σ_{l<L} λ̄_{1..L-1}²/λ̄_l².

    Then for every step size η below 8/α² and below

        ‖X‖_F^{-2} λ̄_{1..L}^{-2} (Σ_{l<L} λ̄_l^{-2}) (Σ_{l<=L} λ̄_l^{-2})^{-2},

    Φ_k <= (1 - η α²/8)^k Φ_0 at every step k. No constant is hidden and no probability enters. α is
    0 unless the last hidden layer has at least N neurons. Where α > 0 all three can be met: the
    third by W_L = 0 and a small C_L, then the others by small labels (`nguyen21_scaled_start`).

    Source: Nguyen, "On the proof of global convergence of gradient descent for deep ReLU networks
      with linear widths" (arXiv:2101.09612v3).

    Args:
      params: (W_1, …, W_L), L >= 2, the weights to start from.
      x: samples, shape (N, d).
      y: labels, shape (N,).
      room: (C_1, …, C_L), how far each matrix may move in norm; by default ‖W_l‖, if none is 0.

    Returns: both sides of the three conditions, in their order, the bound on η, and α²/8.

    Raises:
      ValueError: a linear model; numbers C_l that are not L or not positive; x and y of different
        lengths, weights that do not fit together or do not fit x.
    """
    _has_hidden_layer(params)
    norms = np.array([np.linalg.norm(np.asarray(w), ord=2) for w in params])
    room = _positive_numbers("room", norms.tolist() if room is None else room, len(params))
    reach = norms + room
    of_x = np.linalg.norm(np.asarray(x))
    alpha = _full_row_rank(feature_matrices(params, x)[-1])
    start = np.linalg.norm(np.asarray(apply(params, x)) - y)
    before = reach[:-1].prod()
    others = (before / reach[:-1]) ** 2
    right = [
        16 * of_x * (reach.prod() / (reach * room)).max() * start,
        32 * of_x**2 * reach[-1] * others.sum() * start,
        16 * of_x**2 * reach[-1] ** 2 * others.sum(),
    ]
    inverse = reach**-2.0
    bound = inverse[:-1].sum() / (of_x * reach.prod() * inverse.sum()) ** 2
    return Convergence(
        left=np.array([alpha**2, alpha**3, alpha**2]),
        right=np.array(right),
        largest_step=float(min(bound, 8 / alpha**2 if alpha**2 else math.inf)),
        rate=alpha**2 / 8,
    )


class ScaledStart(NamedTuple):
    """Where gradient descent starts."""

    params: tuple[Float[Array, "_ _"], ...]
    """(W_1, …, W_L)"""
    y: Float[np.ndarray, " N"]
    """labels"""
    room: tuple[float, ...]
    """(C_1, …, C_L)"""


@checked(params=_checks.weights, x=_checks.inputs, y=_checks.labels)
def nguyen21_scaled_start(
    params: Params, x: Float[ArrayLike, "N d"], y: Float[ArrayLike, " N"]
) -> ScaledStart:
    """Scale the last matrix and the labels until the conditions of `nguyen21_convergence` hold.

    W_L becomes 0, C_l = ‖W_l‖/10 for l < L; then the right side of the third condition is quadratic
    in C_L, and those of the others are linear in y. C_L makes the right side of the third 0.9 of
    the left, and a factor in front of y does it for the stricter one of the other two.

    Args:
      params: (W_1, …, W_L), L >= 2; at least N neurons in the last hidden layer.
      x: samples, shape (N, d).
      y: labels, shape (N,), not all 0.

    Returns: the weights, the labels and the C_l.

    Raises:
      ValueError: α = σ_min(F_{L-1}) is 0 to rounding, so that no scale does it; labels that are all
        0; a linear model; what `nguyen21_convergence` refuses.
    """
    if not y.any():
        raise ValueError("y: expected labels that are not all 0, got zeros")
    _has_hidden_layer(params)
    params = (*params[:-1], 0.0 * params[-1])
    features = np.asarray(feature_matrices(params, x)[-1])
    if _full_row_rank(features) ** 2 <= rounding_error(features @ features.T):
        raise ValueError(
            "params: expected a last hidden layer of full row rank, got σ_min(F_{L-1}) = 0"
        )
    room = [0.1 * float(np.linalg.norm(np.asarray(w), ord=2)) for w in params[:-1]]
    unscaled = nguyen21_convergence(params, x, y, [*room, 1.0])
    room.append(math.sqrt(0.9 * unscaled.left[2] / unscaled.right[2]))
    unscaled = nguyen21_convergence(params, x, y, room)
    scale = 0.9 * (unscaled.left / unscaled.right)[:2].min()
    return ScaledStart(params, scale * y, tuple(room))


_WEAK_PL = {
    "params": _checks.weights,
    "x": _checks.inputs,
    "gamma": _checks.positive_number,
    "activation": is_activation,
}


@checked(**_WEAK_PL)
def weak_pl_factor(
    params: Params, x: Float[ArrayLike, "N d"], gamma: float, *, activation: Activation
) -> float:
    """Lower-bound the gradient in W_2 by the residual: the weak Polyak–Łojasiewicz inequality.

        ‖∂Φ/∂W_2‖_F >= μ ‖f(X) - y‖,   μ = γ^{L-2} σ_min(F_1) ∏_{l=3}^L σ_min(W_l)

    for an activation with σ' >= γ, which is for the caller to know. For ∂Φ/∂W_2 = F_1ᵀ Δ_2 with
    Δ_L = r and Δ_l = σ'(F_{l-1} W_l) ∘ (Δ_{l+1} W_{l+1}ᵀ): each of the L-2 slopes costs a factor γ
    in norm, each W_{l+1}ᵀ its σ_min, and F_1ᵀ its own.

    Certificate: true for all weights and labels; what rounding can do to singular values is taken
    off, that of the features is not covered. It says something if n_1 >= N and n_2 >= … >= n_{L-1},
    a pyramid: σ_min is about all N rows of F_1 and all n_l columns of W_l, and μ is 0 where there
    are fewer of the others.

    Source: the inequality of Nguyen and Mondelli (arXiv:2002.07867); this form derived here.

    Args:
      params: (W_1, …, W_L), L >= 2.
      x: samples, shape (N, d).
      gamma: γ > 0, at most the smallest slope of the activation.
      activation: σ, such as `SmoothedLeakyReLU(gamma, beta)`.

    Returns: μ.

    Raises:
      ValueError: a linear model; weights that do not fit together or do not fit x.
    """
    _has_hidden_layer(params)
    return float(gamma ** (len(params) - 2) * math.prod(_weak_pl_sigmas(params, x, activation)))


@checked(params=_checks.weights, x=_checks.inputs, activation=is_activation)
def weak_pl_singular_values(
    params: Params, x: Float[ArrayLike, "N d"], *, activation: Activation
) -> Float[np.ndarray, " matrices"]:
    """Return the smallest singular values σ(F_1), σ(W_3), …, σ(W_L), as `weak_pl_factor` has them.

    Each is the smallest of as many as the shorter side of its matrix has. With n_1 >= N and a
    pyramid behind, μ = γ^{L-2} times their product, up to rounding, which is not taken off here.
    Otherwise they can all be positive where μ is 0.

    Args:
      params: (W_1, …, W_L), L >= 2.
      x: samples, shape (N, d).
      activation: σ.

    Returns: L-1 numbers, that of F_1 first.

    Raises:
      ValueError: a linear model; weights that do not fit together or do not fit x.
    """
    _has_hidden_layer(params)
    features = feature_matrices(params, x, activation=activation)[1]
    return np.array([smallest_singular_value(f) for f in (features, *params[2:])])


@checked(params=_checks.weights, x=_checks.inputs, activation=is_activation)
def weak_pl_counterexample(
    params: Params, x: Float[ArrayLike, "N d"], *, activation: Activation
) -> tuple[tuple[Float[Array, "_ _"], ...], Float[np.ndarray, " N"]]:
    """Choose W_L and labels at which, without a pyramid, ∂Φ/∂W_2 = 0 while the residual is not.

        y = f(X) + e_1   and   W_{L-1} D W_L = 0,   ‖W_L‖ = 1,   D = diag(σ'(g_{L-1}(x_1)))

    Such a W_L exists if the last hidden layer has more neurons than the one before it: W_{L-1} D
    has more columns than rows. Only the first sample has a residual, of size 1, and W_{L-1} D W_L
    is the gradient of its output in its features f_{L-2}: the gradients in W_1, …, W_{L-2} are 0,
    for L >= 4 that in W_2 too. So no μ > 0 has ‖∂Φ/∂W_2‖ >= μ ‖r‖ here, and the factor of
    `weak_pl_factor` is 0. The product of `weak_pl_singular_values` is positive, in general.

    Source: derived here.

    Args:
      params: (W_1, …, W_L), L >= 4, with n_{L-2} < n_{L-1}; W_L is not used.
      x: samples, shape (N, d).
      activation: σ.

    Returns: the weights (W_1, …, W_L), with the new W_L, and the labels, shape (N,).

    Raises:
      ValueError: L < 4; n_{L-2} >= n_{L-1}; weights that do not fit together or do not fit x.
    """
    if len(params) < 4:
        raise ValueError(f"params: expected three hidden layers, L >= 4, got L = {len(params)}")
    w = np.asarray(params[-2])
    if w.shape[0] >= w.shape[1]:
        raise ValueError(
            "params: expected more neurons in the last hidden layer than in the one before it, "
            f"got {w.shape[1]} and {w.shape[0]}"
        )
    before = np.asarray(feature_matrices(params, x, activation=activation)[-2])
    d = np.asarray(slopes(activation, before[:1] @ w))
    params = (*params[:-1], _checks.on_device(scipy.linalg.null_space(w * d)[:, :1]))
    y = np.array(apply(params, x, activation=activation))
    y[0] += 1
    return params, y


@checked(**_WEAK_PL, y=_checks.labels)
def nguyen20_recalled_condition(
    params: Params,
    x: Float[ArrayLike, "N d"],
    y: Float[ArrayLike, " N"],
    gamma: float,
    *,
    activation: Activation,
) -> tuple[float, float]:
    """Compute a condition of a theorem on gradient descent, its constants as recalled, unverified.

        λ_F² >= γ⁴/3 (6/γ²)^L ‖X‖_F √(2Φ_0) λ̄_{3→L}/λ_{3→L}²
                · max(2 λ̄_1 λ̄_2/min_{l>=3} λ_l λ̄_l, λ̄_1, λ̄_2)

    with λ_F = σ_min(F_1), λ_l = σ_min(W_l), λ̄_l = ‖W_l‖ for l >= 3 and ⅔ (1 + ‖W_l‖) for l <= 2,
    products over l = 3, …, L (3→L), all at the weights to start from. Take it for its order of
    magnitude only, and the paper for the theorem, which has more conditions than this one.

    Source: the first condition of Theorem 3.2 of Nguyen and Mondelli (arXiv:2002.07867), from
      memory: the constants are not checked against the paper.

    Args:
      params: (W_1, …, W_L), L >= 3, the weights to start from.
      x: samples, shape (N, d).
      y: labels, shape (N,).
      gamma: γ > 0, at most the smallest slope of the activation.
      activation: σ, smooth, with γ <= σ' <= 1.

    Returns: the left side, 0 with fewer than N neurons in the first layer; and the right side,
      infinite where some λ_l is 0, as behind the first layer without a pyramid.

    Raises:
      ValueError: L < 3; x and y of different lengths, weights that do not fit together or do not
        fit x.
    """
    _has_two_hidden_layers(params)
    norms = np.array([np.linalg.norm(np.asarray(w), ord=2) for w in params])
    bar_1, bar_2 = 2 / 3 * (1 + norms[:2])
    bars = norms[2:]
    lambdas = np.array([_full_row_rank(np.asarray(w).T) for w in params[2:]])
    lambda_f = _full_row_rank(feature_matrices(params, x, activation=activation)[1])
    if not lambdas.all():
        return lambda_f**2, math.inf
    start = np.linalg.norm(np.asarray(apply(params, x, activation=activation)) - y)
    right = gamma**4 / 3 * (6 / gamma**2) ** len(params) * np.linalg.norm(np.asarray(x)) * start
    right *= bars.prod() / lambdas.prod() ** 2
    right *= max(2 * bar_1 * bar_2 / (lambdas * bars).min(), bar_1, bar_2)
    return lambda_f**2, float(right)


class FlowConvergence(NamedTuple):
    """The condition of a convergence theorem on gradient flow, and what it gives."""

    left: float
    """the left side; the condition holds if left >= right"""
    right: float
    """the right side"""
    radius: float
    """R, of ‖θ(t) - θ(0)‖ <= R"""
    rate: float
    """ρ, of Φ(t) <= e^{-ρ t} Φ(0)"""

    @property
    def holds(self) -> bool:
        """Whether the condition holds."""
        return self.left >= self.right


@checked(**_WEAK_PL, y=_checks.labels)
def weak_pl_flow(
    params: Params,
    x: Float[ArrayLike, "N d"],
    y: Float[ArrayLike, " N"],
    gamma: float,
    *,
    activation: Activation,
) -> FlowConvergence:
    """Compute a condition under which gradient flow converges, from the weak PL inequality.

    If no weight matrix has moved by more than R, the factor of `weak_pl_factor` is at least

        μ(R) = γ^{L-2} (σ_min(F_1) - ‖X‖ R)_+ ∏_{l=3}^L (σ_min(W_l) - R)_+

    for γ <= σ' <= 1. If some R > 0 has R μ(R) >= ‖f(X) - y‖ at the start, then for all t >= 0

        ‖θ(t) - θ(0)‖ <= R   and   Φ(t) <= e^{-ρ t} Φ(0),   ρ = 2 μ(R)².

    For as long as the flow is within R and r ≠ 0, d‖r‖/dt = -‖∇Φ‖²/‖r‖ <= -μ ‖∇Φ‖: the path that it
    has gone is at most (‖r(0)‖ - ‖r(t)‖)/μ long, less than R unless r = 0, where it rests. So it
    never leaves, and dΦ/dt = -‖∇Φ‖² <= -2 μ² Φ all the time. No constant is hidden and no
    probability enters. What rounding can do to singular values is taken off, as in
    `weak_pl_factor`.

    Source: derived here, after the proof idea of Nguyen and Mondelli (arXiv:2002.07867), whose
      theorem is on gradient descent and has other constants.

    Args:
      params: (W_1, …, W_L), L >= 2, the weights at t = 0.
      x: samples, shape (N, d).
      y: labels, shape (N,).
      gamma: γ > 0, at most the smallest slope of the activation.
      activation: σ, continuously differentiable with γ <= σ' <= 1.

    Returns: max_R R μ(R) on the left, ‖f(X) - y‖ on the right. If the condition holds, the smallest
      R with R μ(R) >= ‖f(X) - y‖, which has the best rate; otherwise an infinite R and the rate 0.

    Raises:
      ValueError: a linear model; x and y of different lengths, weights that do not fit together or
        do not fit x.
    """
    _has_hidden_layer(params)
    sigmas = np.array(_weak_pl_sigmas(params, x, activation))
    speeds = np.ones_like(sigmas)
    speeds[0] = np.linalg.norm(np.asarray(x), ord=2)
    factor = gamma ** (len(params) - 2)
    mu = lambda radius: float(factor * (sigmas - speeds * radius).prod())  # noqa: E731
    right = float(np.linalg.norm(np.asarray(apply(params, x, activation=activation)) - y))
    reach = float((sigmas / speeds).min()) if speeds[0] else 0.0
    # the logarithm of R μ(R) is concave below the reach: there is one maximum
    found = scipy.optimize.minimize_scalar(
        lambda radius: -radius * mu(radius), bounds=(0, reach), method="bounded"
    )
    best = float(found.x)
    left = best * mu(best)
    if left < right:
        return FlowConvergence(left, right, math.inf, 0.0)
    excess = lambda radius: radius * mu(radius) - right  # noqa: E731
    radius = scipy.optimize.brentq(excess, 0, best, xtol=1e-300, rtol=1e-12)
    radius = min(radius * (1 + 1e-9), best)
    return FlowConvergence(left, right, radius, 2 * mu(radius) ** 2)


@checked(**_WEAK_PL, y=_checks.labels)
def weak_pl_start(
    params: Params,
    x: Float[ArrayLike, "N d"],
    y: Float[ArrayLike, " N"],
    gamma: float,
    *,
    activation: Activation,
) -> tuple[Float[Array, "_ _"], ...]:
    """Scale the matrices behind the second until the condition of `weak_pl_flow` holds.

    W_2 becomes 0, so that all outputs are 0 if σ(0) = 0, and W_3, …, W_L are multiplied by the
    smallest power of 2, at least 1, for which the condition holds: its left side grows at least in
    proportion to it, and the right side is ‖y‖.

    Source: a start of this kind meets the condition of Nguyen and Mondelli (arXiv:2002.07867) at
      n_1 = N.

    Args:
      params: (W_1, …, W_L), L >= 3; a wide layer, then a pyramid.
      x: samples, shape (N, d).
      y: labels, shape (N,).
      gamma: as for `weak_pl_flow`.
      activation: σ, with σ(0) = 0.

    Returns: the weights.

    Raises:
      ValueError: σ(0) is not 0; μ is 0 or so small that no scale up to 2^200 is enough; L < 3; what
        `weak_pl_flow` refuses.
    """
    _has_two_hidden_layers(params)
    at_0 = float(activation(np.zeros(1))[0])
    if at_0 != 0:
        raise ValueError(f"activation: expected σ(0) = 0, got {at_0:.3g}")
    w_1, w_2, *others = params
    for exponent in range(201):
        scaled = (w_1, 0.0 * w_2, *(2.0**exponent * w for w in others))
        if weak_pl_flow(scaled, x, y, gamma, activation=activation).holds:
            return scaled
    raise ValueError(
        "params: expected a wide layer of full row rank, then a pyramid, got a factor of the weak "
        f"PL inequality of {weak_pl_factor(params, x, gamma, activation=activation):.3g}"
    )


def _weak_pl_sigmas(params, x, activation) -> list[float]:
    """σ_min(F_1), σ_min(W_3), …, σ_min(W_L), less what rounding can do to them, at least 0."""
    features = feature_matrices(params, x, activation=activation)[1]
    matrices = [np.asarray(features), *(np.asarray(w).T for w in params[2:])]
    return [
        max(_full_row_rank(f) - max(f.shape) * np.finfo(f.dtype).eps * np.linalg.norm(f), 0.0)
        for f in matrices
    ]


def _full_row_rank(f) -> float:
    """The smallest of as many singular values as there are rows: 0 with fewer columns."""
    return smallest_singular_value(f) if f.shape[1] >= f.shape[0] else 0.0


def _has_hidden_layer(params) -> None:
    """Raise for a linear model."""
    if len(params) < 2:
        raise ValueError("params: expected a hidden layer, L >= 2, got L = 1")


def _has_two_hidden_layers(params) -> None:
    """Raise for fewer."""
    if len(params) < 3:
        raise ValueError(f"params: expected two hidden layers, L >= 3, got L = {len(params)}")


def _positive_numbers(name, value, n):
    numbers = _checks.iterable(name, value)
    if len(numbers) != n:
        raise ValueError(f"{name}: expected {n} numbers, one a weight matrix, got {len(numbers)}")
    return np.array([_checks.positive_number(f"{name}[{i}]", c) for i, c in enumerate(numbers)])


@checked(x=_checks.inputs, y=_checks.labels)
def arora19_complexity(x: Float[ArrayLike, "N d"], y: Float[ArrayLike, " N"]) -> float:
    """Return the leading term of a bound on the test loss, √(2 yᵀ H⁻¹ y / N).

        H_ij = c (π - θ)/(2π),   c = cos θ the cosine between x_i and x_j:

    the limiting kernel of a two-layer ReLU network of which the first layer alone is trained, on
    samples of norm 1. It is small for labels with little along small eigenvalues of H, and at least
    √(2 ‖y‖²/(N λ_max(H))).

    Source: Arora, Du, Hu, Li, Wang, "Fine-grained analysis of optimization and generalization for
      overparameterized two-layer neural networks" (arXiv:1901.08584). With probability at least 1-δ
      the theorem bounds the test loss of a wide enough network, trained long enough from small
      enough weights, by this and O(√(log(N/(λ_0 δ))/N)), for samples of a law under which λ_min(H)
      is above λ_0; its hypotheses on law, loss and labels are not checked here.

    Args:
      x: samples, shape (N, d), taken at norm 1.
      y: labels, shape (N,).

    Raises:
      ValueError: H is singular to rounding, as for samples that point the same way; x and y of
        different lengths.
    """
    _, directions = polar(x)
    h = limiting_layer_ntks(directions, depth=2)[0] / 2
    if spectrum(h)[0] <= rounding_error(h):
        raise ValueError(
            "x: expected samples whose kernel is positive definite, got one that is singular to "
            "rounding, as for samples that point the same way, or a sample 0"
        )
    return math.sqrt(2 * y @ scipy.linalg.solve(h, y, assume_a="pos") / len(y))
