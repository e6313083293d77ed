"""Smallest singular values and Lipschitz constants of the feature maps f_k.

Sections 5 and 6 of Nguyen, Mondelli, Montúfar, "Tight bounds on the smallest eigenvalue of the
neural tangent kernel for deep ReLU networks" (ICML 2021, arXiv:2012.11654), and what it takes to
look at them: Khatri–Rao powers, the mean Gram matrix of the next layer, Jacobians of f_k. A
function named `nguyen21_…` returns the expression inside the Ω(·) or O(·) of a theorem, recalled
and not read: its constants are unspecified. Lipschitz constants and norms of Jacobians are squared
throughout, as in those theorems, and their names say so.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils.bounds import hermite_coefficient
from ntk_utils.networks import Network, Params, is_network

_MOST_COLUMNS = 10**7
_HIGHEST_ORDER = 40
_TINY = 1e-300  # added to what may be 0 and is divided by


def _is_hidden_layer(k: int, depth: int) -> None:
    if k >= depth:
        raise ValueError(f"k: expected a hidden layer, an integer from 1 to {depth - 1}, got {k}")


def _is_previous_layer(f, network: Network, k: int) -> None:
    _is_hidden_layer(k, network.depth)
    if f.shape[1] != network.widths[k - 1]:
        raise ValueError(
            f"f: expected {network.widths[k - 1]} columns, the width of layer {k - 1}, "
            f"got shape {f.shape}"
        )


# --- Theorem 5.1: the smallest singular value of F_k ----------------------------------------------


@checked(network=is_network, k=_checks.positive_integer)
def nguyen21_feature_sigma_min_squared(network: Network, k: int) -> float:
    """Return the rate of Theorem 5.1 (arXiv:2012.11654) for the feature matrix F_k.

    With high probability, for every even r >= 2,

        μ_r(σ)² Ω(rate) <= σ_min(F_k)² <= O(rate),   rate = d ∏_{l=1}^k n_l β_l².

    Hypotheses, none of them checked here: i.i.d. rows with ‖x_i‖ ≈ √d and Lipschitz concentration,
    d at least of the order N^{2/(r-0.5)}, n_k at least N times a power of log N, and
    ∏_{l=1}^{k-1} log n_l = o(min_{l<k} n_l). Constants unspecified; `mean_feature_norms_squared`
    gives the upper one in the mean, 2^{-k}.

    Args:
      network: widths and betas. Under "lecun" the rate is n_k.
      k: hidden layer, 1 <= k <= L-1.

    Raises:
      ValueError: k is no hidden layer.
    """
    _is_hidden_layer(k, network.depth)
    return network.widths[0] * _scale(network, k)


def _scale(network: Network, k: int) -> float:
    """∏_{l=1}^k n_l β_l²."""
    factors = zip(network.widths[1 : k + 1], network.betas[:k], strict=True)
    return math.prod(n * beta**2 for n, beta in factors)


@checked(network=is_network, x=_checks.inputs, k=_checks.positive_integer)
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
    _is_hidden_layer(k, network.depth)
    return _checks.on_device(0.5**k * _scale(network, k) * (_checks.concrete(x) ** 2).sum(axis=1))


@checked(network=is_network, f=_checks.inputs, k=_checks.positive_integer)
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
    gram = np.asarray(f) @ np.asarray(f).T
    norms = np.sqrt(np.diagonal(gram))
    lengths = np.outer(norms, norms)
    cosine = np.clip(gram / np.where(lengths > 0, lengths, 1), -1, 1)
    angle = np.arccos(cosine)
    kernel = (np.sin(angle) + (np.pi - angle) * cosine) / (2 * np.pi)
    return network.widths[k] * network.betas[k - 1] ** 2 * lengths * kernel


@checked(network=is_network, f=_checks.inputs, k=_checks.positive_integer)
def mean_feature_gram_lower_bound(network: Network, f: Float[ArrayLike, "N _"], k: int) -> float:
    """Lower-bound the smallest eigenvalue of `mean_feature_gram`, with no hidden constant.

        λ_min(E[F_k F_kᵀ | F_{k-1}])
            >= n_k β_k² min_i ‖f_i‖² Σ_{r=2,4,…,40} μ_r² max(0, γ(U Uᵀ, r), γ(U P Uᵀ, r)),
        γ(Q, r) = min_i (Q_ii^r - Σ_{j≠i} |Q_ij|^r)

    Certificate: true for all weights and data. U has the rows f_i/‖f_i‖, and γ is Gershgorin's
    bound on the r-th Hadamard power, the Gram matrix of `khatri_rao_power`. P projects the mean row
    of U out, the role that centring has in the proof of Theorem 5.1 of arXiv:2012.11654;
    unlike subtracting the mean it is monotone, U Uᵀ >= U P Uᵀ >= 0, and Schur's product theorem
    carries this to the powers (derived here).

    Args:
      network: widths and betas.
      f: the features F_{k-1}, shape (N, n_{k-1}); the samples themselves for k = 1.
      k: hidden layer, 1 <= k <= L-1.

    Returns: the bound, >= 0; 0 if a row is zero, or two rows are parallel.

    Raises:
      ValueError: f does not have n_{k-1} columns, or k is no hidden layer.
    """
    _is_previous_layer(f, network, k)
    f = np.asarray(f)
    norms = np.linalg.norm(f, axis=1, keepdims=True)
    if not norms.all():
        return 0.0
    u = f / norms
    mean = u.mean(axis=0)
    along_mean = u @ mean
    gram = u @ u.T
    projected = gram - np.outer(along_mean, along_mean) / max(mean @ mean, _TINY)
    series = sum(
        hermite_coefficient(r) ** 2 * max(0.0, of_raw, of_projected)
        for r, of_raw, of_projected in zip(
            range(2, _HIGHEST_ORDER + 1, 2),
            _gershgorins(gram),
            _gershgorins(projected),
            strict=True,
        )
    )
    return float(network.widths[k] * network.betas[k - 1] ** 2 * norms.min() ** 2 * series)


def _gershgorins(gram) -> list[float]:
    """Gershgorin's lower bound on the Hadamard powers of order 2, 4, …, which have no signs."""
    square = gram * gram
    powers = itertools.accumulate([square] * (_HIGHEST_ORDER // 2), np.multiply)
    return [float((2 * np.diagonal(power) - power.sum(axis=1)).min()) for power in powers]


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


# --- Theorem 6.2: the Lipschitz constant of f_k ---------------------------------------------------


@checked(network=is_network, k=_checks.positive_integer)
def nguyen21_lipschitz_squared_upper(network: Network, k: int, *, logs: bool = True) -> float:
    """Return the rate of Theorem 6.2 (arXiv:2012.11654) for the squared Lipschitz constant of f_k.

    With high probability ‖f_k‖_Lip² <= O(this):

        (∏_{l=0}^k n_l / min_{0<=l<=k} n_l) ∏_{l=1}^{k-1} log(n_l) ∏_{l=1}^k β_l²

    Constant unspecified, and the form is recalled, not read. The logarithms have a meaning for
    large widths only: at n_l = 1 the expression is 0, and f_k is not constant.

    Args:
      network: widths and betas. Under "lecun" the rate without logarithms is n_k / min_{l<=k} n_l.
      k: hidden layer, 1 <= k <= L-1.
      logs: whether to include the logarithms, which may be an artefact of the proof.

    Raises:
      ValueError: k is no hidden layer.
    """
    _is_hidden_layer(k, network.depth)
    widths = network.widths[: k + 1]
    log_product = math.prod(math.log(n) for n in widths[1:-1]) if logs else 1.0
    return widths[0] / min(widths) * _scale(network, k) * log_product


@checked(params=_checks.weights, k=_checks.positive_integer)
def lipschitz_product_squared(params: Params, k: int) -> float:
    """Upper-bound the squared Lipschitz constant of f_k by ∏_{l=1}^k ‖W_l‖², spectral norms.

    Certificate: true on every draw, because the ReLU is 1-Lipschitz. It pays for the worst
    direction of every layer separately: a random W_l has ‖W_l‖² ≈ β_l² (√n_{l-1} + √n_l)².

    Args:
      params: (W_1, …, W_L).
      k: hidden layer, 1 <= k <= L-1.

    Raises:
      ValueError: k is no hidden layer.
    """
    _is_hidden_layer(k, len(params))
    return math.prod(float(np.linalg.norm(np.asarray(w), ord=2)) ** 2 for w in params[:k])


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
    _is_hidden_layer(k, len(params))
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
    _is_hidden_layer(k, len(params))
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
