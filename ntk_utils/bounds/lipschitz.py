"""Theorem 6.2: the Lipschitz constants of the feature maps f_k.

Section 6 of Nguyen, Mondelli, Montúfar, "Tight bounds on the smallest eigenvalue of the neural
tangent kernel for deep ReLU networks" (ICML 2021, arXiv:2012.11654v5). Lipschitz constants and
norms of Jacobians are squared throughout, as in the theorem, and the names say so.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils.bounds.features import nguyen21_feature_sigma_min_squared
from ntk_utils.networks import Network, Params, is_relu_network
from ntk_utils.spectra import ROUNDINGS

_TINY = 1e-300  # added to what may be 0 and is divided by


@checked(network=is_relu_network, k=_checks.positive_integer)
def nguyen21_lipschitz_squared_upper(network: Network, k: int, *, logs: bool = True) -> float:
    """Return the rate of Theorem 6.2 (arXiv:2012.11654) for the squared Lipschitz constant of f_k.

    With probability at least 1 - Σ_{l=1}^k e^{-Ω(n_l)}, ‖g_k‖_Lip² <= O(this), g_k the
    pre-activation of layer k; f_k follows, because the ReLU is 1-Lipschitz:

        (∏_{l=0}^k n_l / min_{0<=l<=k} n_l) ∏_{l=1}^{k-1} log(n_l) ∏_{l=1}^k β_l²

    Constant unspecified. The logarithms have a meaning for large widths only: at n_l = 1 the
    expression is 0, and f_k is not constant.

    Args:
      network: widths and betas. Under "lecun" the rate without logarithms is n_k / min_{l<=k} n_l.
      k: hidden layer, 1 <= k <= L-1.
      logs: whether to include the logarithms, which may be an artefact of the proof.

    Raises:
      ValueError: k is no hidden layer.
    """
    rate = nguyen21_feature_sigma_min_squared(network, k)
    widths = network.widths[: k + 1]
    log_product = math.prod(math.log(n) for n in widths[1:-1]) if logs else 1.0
    return rate / min(widths) * log_product


@checked(params=_checks.weights, k=_checks.positive_integer)
def lipschitz_product_squared(params: Params, k: int) -> float:
    """Upper-bound the squared Lipschitz constant of f_k by ∏_{l=1}^k ‖W_l‖², spectral norms.

    Certificate: true on every draw, because the ReLU is 1-Lipschitz; what rounding can have taken
    away is added. It pays for the worst direction of every layer separately: a random W_l has
    ‖W_l‖² ≈ β_l² (√n_{l-1} + √n_l)².

    Args:
      params: (W_1, …, W_L).
      k: hidden layer, 1 <= k <= L-1.

    Raises:
      ValueError: k is no hidden layer.
    """
    _checks.is_hidden_layer(k, len(params))
    norms = [float(np.linalg.norm(np.asarray(w), ord=2)) for w in params[:k]]
    return math.prod(norm * norm for norm in norms) * (1 + ROUNDINGS)


@checked(params=_checks.weights, x=_checks.inputs, k=_checks.positive_integer)
def feature_jacobian_norms_squared(
    params: Params, x: Float[ArrayLike, "N d"], k: int
) -> Float[Array, " N"]:
    """Return ‖J_k(x_i)‖², the squared spectral norm of the Jacobian of f_k, at every sample.

        J_k(x) = Σ_k W_kᵀ ⋯ Σ_1 W_1ᵀ,   Σ_l = diag(σ'(g_l(x)))

    Their supremum over all x is ‖f_k‖_Lip², so that on finitely many samples they bound it from
    below, and only from below. J_k is piecewise constant, and J_k(c x) = J_k(x) for c > 0.

    Args:
      params: (W_1, …, W_L).
      x: samples, shape (N, d).
      k: hidden layer, 1 <= k <= L-1.

    Returns: the squared norms, shape (N,), exact up to rounding. J_k is never formed: it is taken
      apart at its narrowest layer, one sample at a time.

    Raises:
      ValueError: k is no hidden layer.
    """
    _checks.is_hidden_layer(k, len(params))
    return _jacobian_norms_squared(params[:k], x)


@jax.jit
def _jacobian_norms_squared(weights, x):
    widths = [w.shape[0] for w in weights] + [weights[-1].shape[1]]
    narrowest = widths.index(min(widths))
    identity = jnp.eye(min(widths))

    def at_one_sample(gates):
        gates = [gate[None, :] for gate in gates]
        # J = Aᵀ B through the narrowest layer; A or B is the identity where that is an end
        a = _forward(weights[narrowest:], gates[narrowest:], identity)
        b = _backward(weights[:narrowest], gates[:narrowest], identity)
        if narrowest == 0:
            core = a
        elif narrowest == len(weights):
            core = b
        else:
            core = jnp.linalg.qr(a.T, mode="r") @ jnp.linalg.qr(b.T, mode="r").T
        return jnp.linalg.svd(core, compute_uv=False)[0] ** 2

    return jax.lax.map(at_one_sample, _gates(weights, x, _is_active))


def _is_active(g):
    return (g > 0).astype(g.dtype)


def _gates(weights, x, gate):
    """The diagonals of Σ_1, …, Σ_k at every sample, each a function of the pre-activation."""
    gates, f = [], x
    for w in weights:
        pre_activation = f @ w
        gates.append(gate(pre_activation))
        f = jax.nn.relu(pre_activation)
    return gates


def _forward(weights, gates, v):
    """J_k v, for each row v."""
    for w, gate in zip(weights, gates, strict=True):
        v = gate * (v @ w)
    return v


def _backward(weights, gates, u):
    """J_kᵀ u, for each row u."""
    for w, gate in zip(reversed(weights), reversed(gates), strict=True):
        u = (gate * u) @ w.T
    return u


@checked(
    params=_checks.weights,
    x=_checks.inputs,
    k=_checks.positive_integer,
    steps=_checks.positive_integer,
    softness=_checks.positive_number,
)
def ascend_jacobian_norms(
    params: Params, x: Float[ArrayLike, "N d"], k: int, *, steps: int = 100, softness: float = 0.1
) -> Float[Array, "N d"]:
    """Move every sample towards a larger Jacobian norm ‖J_k(x)‖, by gradient ascent.

    The norm itself is piecewise constant, its gradient is 0 almost everywhere. So the ascent is on
    a smoothed norm, in which σ'(g) is replaced by the logistic function of g / (softness · root
    mean square of g over the layer); of all points visited, the best for J_k itself is kept. Each
    step moves a sample on its sphere, because J_k(c x) = J_k(x), by an angle that falls linearly
    from 0.2 to 0. A heuristic: the result bounds the Lipschitz constant of f_k from below, as
    sampled points do, and is no proof that a larger value does not exist.

    Args:
      params: (W_1, …, W_L).
      x: where to start, shape (N, d).
      k: hidden layer, 1 <= k <= L-1.
      steps: number of gradient steps.
      softness: width of the smoothing, in units of a typical pre-activation.

    Returns: points of the same norms as x, shape (N, d); none has a smaller Jacobian norm than the
      sample from which it started.

    Raises:
      ValueError: k is no hidden layer.
    """
    _checks.is_hidden_layer(k, len(params))
    weights = params[:k]
    found = _ascend(weights, x, softness, 0.2 * jnp.linspace(1, 0, steps))
    is_better = _jacobian_norms_squared(weights, found) > _jacobian_norms_squared(weights, x)
    return jnp.where(is_better[:, None], found, x)


@jax.jit
def _ascend(weights, x, softness, angles):
    def soft(g):
        size = jnp.sqrt(jnp.square(g).mean(axis=1, keepdims=True) + _TINY)
        return jax.nn.sigmoid(g / (softness * size))

    def log_stretch(x, v, gate):
        return jnp.log(jnp.square(_forward(weights, _gates(weights, x, gate), v)).sum(axis=1))

    def step(state, angle):
        x, v, best_x, best = state
        gates = _gates(weights, x, soft)
        # a step of the power method, warm from the step before, keeps v the direction of stretch
        v = _unit(_backward(weights, gates, _forward(weights, gates, v)))
        # the derivative of a largest singular value is that of ‖J v‖ at fixed v
        slope = jax.grad(lambda x: log_stretch(x, v, soft).sum())(x)
        x = norms * _unit(_unit(x) + angle * _unit(slope))
        value = log_stretch(x, v, _is_active)
        best_x = jnp.where((value > best)[:, None], x, best_x)
        return (x, v, best_x, jnp.maximum(value, best)), None

    norms = jnp.linalg.norm(x, axis=1, keepdims=True)
    start = (x, _unit(x), x, jnp.full(len(x), -jnp.inf))
    return jax.lax.scan(step, start, angles)[0][2]


def _unit(v):
    return v / (jnp.linalg.norm(v, axis=1, keepdims=True) + _TINY)
