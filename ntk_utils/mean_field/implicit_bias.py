"""What l2-regularised training makes of a univariate two-layer ReLU network: few knots.

    f(x) = (1/N) Σ_i a_i (w_i x + b_i)_+,   θ_i = (a_i, w_i, b_i),
    F(θ) = (1/2M) Σ_j (f(x_j) - y_j)² + (λ/2N) Σ_i ‖θ_i‖².

The slope of f changes at the knots t_i = -b_i/w_i, by a_i |w_i|/N. Write R_j = (f(x_j) - y_j)/M for
the residuals and (w, b) = r (cos φ, sin φ) for the inner weights of a neuron, and let

    q(φ) = (1/λ) Σ_j R_j (x_j cos φ + sin φ)_+.

Over networks of any width, min F is the minimum of a lasso with one feature for each φ, and
|q| <= 1 is the constraint of its dual. With noise of temperature T and N → ∞ the neurons at rest
are independent, of density ρ* ∝ exp(-Ψ/T), Ψ = (λ/2)(a² + r²) + λ a r q(φ).

Setting: Shevchenko, Kungurtsev, Mondelli (JMLR 23(130), 2022, arXiv:2111.02278), whose factors may
differ from the ones here; formulas with constants are derived here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils._progress import progress_bar

_CHUNK = 5_000
"""Steps of gradient descent that one compiled call makes."""


class Run(NamedTuple):
    """What training returns."""

    theta: Float[np.ndarray, "N 3"]
    """(a_i, w_i, b_i) after the last step"""
    outputs: Float[np.ndarray, "steps M"]
    """f(x_j) before each step"""


class Knots(NamedTuple):
    """Knots from left to right."""

    positions: Float[np.ndarray, " knots"]
    """t_k, the mean position in a window, by slope changes"""
    slope_changes: Float[np.ndarray, " knots"]
    """m_k, the sum of the slope changes in the window"""


class Coefficients(NamedTuple):
    """A and B for knots in each of the M + 1 intervals between -∞, x_1, …, x_M, ∞.

    The first row is for neurons with w > 0, which are active right of their knot, the second for
    w < 0.
    """

    a: Float[np.ndarray, "2 intervals"]
    """A"""
    b: Float[np.ndarray, "2 intervals"]
    """B"""


class MeanField(NamedTuple):
    """The limit N → ∞ of noisy training at rest: residuals, and two measures on the circle of φ.

    A measure is given by its values at nodes of a quadrature rule: its integral is their sum.
    """

    residuals: Float[np.ndarray, " M"]
    """R_j = (f(x_j) - y_j)/M"""
    angles: Float[np.ndarray, " nodes"]
    """φ, increasing; a neuron of angle φ has its knot at -tan φ"""
    shares: Float[np.ndarray, " nodes"]
    """the law of the angle of a neuron; sums to 1"""
    weights: Float[np.ndarray, " nodes"]
    """c, of f(x) = Σ c (x cos φ + sin φ)_+; the slope of f changes by c |cos φ|"""

    @property
    def theta(self) -> Float[np.ndarray, "nodes 3"]:
        """Neurons with the outputs of the limit, for `outputs` and `slopes`; not of its law."""
        c, phi = len(self.weights) * self.weights, self.angles
        return np.stack([c, np.cos(phi), np.sin(phi)], axis=1)


def _increasing(name, value):
    x = _checks.labels(name, value)
    if len(x) < 2 or not (np.diff(x) > 0).all():
        raise ValueError(f"{name}: expected at least two inputs, increasing, got {x}")
    return x


def _neurons(name, value):
    theta = np.asarray(_checks.inputs(name, value))
    if theta.shape[1] != 3:
        raise ValueError(f"{name}: expected rows (a, w, b), shape (N, 3), got {theta.shape}")
    return theta


@checked(theta=_neurons, x=_checks.labels)
def outputs(theta: Float[ArrayLike, "N 3"], x: Float[ArrayLike, " M"]) -> Float[np.ndarray, " M"]:
    """Compute f(x) = (1/N) Σ_i a_i (w_i x + b_i)_+.

    Args:
      theta: rows (a_i, w_i, b_i), shape (N, 3).
      x: inputs, shape (M,).
    """
    a, w, b = theta.T
    return a @ np.maximum(np.outer(w, x) + b[:, None], 0) / len(a)


@checked(theta=_neurons, x=_checks.labels)
def slopes(theta: Float[ArrayLike, "N 3"], x: Float[ArrayLike, " M"]) -> Float[np.ndarray, " M"]:
    """Compute f'(x) = (1/N) Σ_i a_i w_i over the neurons with w_i x + b_i > 0.

    Args:
      theta: rows (a_i, w_i, b_i), shape (N, 3).
      x: points, shape (M,); at a knot of f, the slope without that neuron.
    """
    a, w, b = theta.T
    return (a * w) @ (np.outer(w, x) + b[:, None] > 0) / len(a)


@checked(theta=_neurons, x=_checks.labels, y=_checks.labels, ridge=_checks.non_negative_number)
def objective(
    theta: Float[ArrayLike, "N 3"],
    x: Float[ArrayLike, " M"],
    y: Float[ArrayLike, " M"],
    *,
    ridge: float,
) -> float:
    """Compute F(θ) = (1/2M) Σ_j (f(x_j) - y_j)² + (λ/2N) Σ_i ‖θ_i‖².

    Args:
      theta: rows (a_i, w_i, b_i), shape (N, 3).
      x: inputs, shape (M,).
      y: labels, shape (M,).
      ridge: λ >= 0.
    """
    fit = np.mean((outputs(theta, x) - y) ** 2) / 2
    return float(fit + ridge / 2 * np.sum(theta**2) / len(theta))


@checked(
    theta=_neurons,
    x=_increasing,
    y=_checks.labels,
    ridge=_checks.non_negative_number,
    step_size=_checks.positive_number,
    steps=_checks.positive_integer,
    temperature=_checks.non_negative_number,
    key=_checks.none_or(_checks.random_key),
)
def train(
    theta: Float[ArrayLike, "N 3"],
    x: Float[ArrayLike, " M"],
    y: Float[ArrayLike, " M"],
    *,
    ridge: float,
    step_size: float,
    steps: int,
    temperature: float = 0.0,
    key: Array | None = None,
) -> Run:
    """Train by full-batch gradient descent, with noise if the temperature is not 0.

        θ_i ← θ_i - η N ∂F/∂θ_i + √(2ηT) ξ_i,   ξ_i standard Gaussian,
        N ∂F/∂θ_i = Σ_j R_j ∇σ(x_j; θ_i) + λ θ_i,   R_j = (f(x_j) - y_j)/M,

    with slope 0 at a kink. The time of the limits is t = η k. Runs of more than two seconds show a
    progress bar. Large inputs ask for small steps: a step should stay below about 1/(1 + max x_j²).

    Args:
      theta: rows (a_i, w_i, b_i), shape (N, 3), the neurons to start from.
      x: inputs, shape (M,), increasing.
      y: labels, shape (M,).
      ridge: λ >= 0.
      step_size: η.
      steps: their number k.
      temperature: T >= 0, 1/β in the paper.
      key: a random key of JAX; needed for T > 0.

    Raises:
      ValueError: T > 0 without a key; inputs that do not increase; a step size at which the outputs
        overflow.
    """
    if temperature > 0 and key is None:
        raise ValueError("key: expected a random key for a temperature > 0, got None")
    state, outputs_of, done = jnp.asarray(theta.T), [], 0
    at_once = math.ceil(steps / math.ceil(steps / _CHUNK))
    with progress_bar(steps, unit=" steps", delay=2) as bar:
        while done < steps:
            n = min(at_once, steps - done)
            sizes = np.where(np.arange(at_once) < n, step_size, 0.0)  # 0 fills the last call up
            chunk_key = None if temperature == 0 else jax.random.fold_in(key, done)
            state, of_steps = _descend(state, x, y, ridge, sizes, temperature, chunk_key)
            outputs_of.append(np.asarray(of_steps)[:n])
            if not np.isfinite(np.asarray(state)).all():
                raise ValueError(
                    "step_size: expected one at which gradient descent is stable, got "
                    f"{step_size:.3g}: the outputs overflowed within {done + n} steps"
                )
            done += n
            bar.update(n)
    return Run(np.asarray(state).T.copy(), np.concatenate(outputs_of))


@jax.jit
def _descend(theta, x, y, ridge, sizes, temperature, key):
    """Take one step for each step size; `theta` is (3, N)."""

    def step(theta, inputs):
        size, number = inputs
        a, w, b = theta
        before = w[:, None] * x[None, :] + b[:, None]
        active = before > 0
        features = jnp.where(active, before, 0.0)
        f = a @ features / a.size
        r = (f - y) / y.size
        of_w = a * jnp.where(active, (r * x)[None, :], 0.0).sum(axis=1)
        of_b = a * jnp.where(active, r[None, :], 0.0).sum(axis=1)
        theta = theta - size * (jnp.stack([features @ r, of_w, of_b]) + ridge * theta)
        if key is not None:
            noise = jax.random.normal(jax.random.fold_in(key, number), theta.shape)
            theta = theta + jnp.sqrt(2 * size * temperature) * noise
        return theta, f

    return jax.lax.scan(step, theta, (sizes, jnp.arange(sizes.size)))


@checked(theta=_neurons, width=_checks.positive_number, share=_checks.non_negative_number)
def knots(theta: Float[ArrayLike, "N 3"], *, width: float, share: float = 0.001) -> Knots:
    """Find the knots of a network, counting neurons that lie close together as one.

    The lightest neurons are left out, as long as they carry at most `share` of
    Σ_i |a_i| ‖(w_i, b_i)‖. The positions of the others, from left to right, are put into windows of
    the given width, each of which begins at the first position that is not in the one before: as
    few windows as cover them.

    Args:
      theta: rows (a_i, w_i, b_i), shape (N, 3).
      width: of a window, in units of x.
      share: from 0 to 1.
    """
    a, w, b = _heavy(theta, share).T
    order = np.argsort(-b / w)
    positions, changes = (-b / w)[order], (a * abs(w))[order] / len(theta)
    found = []
    while len(positions):
        n = np.searchsorted(positions, positions[0] + width, side="right")
        found.append((np.average(positions[:n], weights=abs(changes[:n])), changes[:n].sum()))
        positions, changes = positions[n:], changes[n:]
    return Knots(*np.reshape(found, (-1, 2)).T)


def _heavy(theta, share):
    """The neurons that have a knot, but for the lightest, which carry at most the share."""
    theta = theta[np.argsort(_costs(theta))]
    costs = _costs(theta)
    return theta[(np.cumsum(costs) > share * costs.sum()) & (theta[:, 1] != 0)]


def _costs(theta):
    """|a_i| ‖(w_i, b_i)‖, which is N |m_i| √(1 + t_i²)."""
    return abs(theta[:, 0]) * np.linalg.norm(theta[:, 1:], axis=1)


@checked(theta=_neurons)
def path_norm(theta: Float[ArrayLike, "N 3"]) -> float:
    """Compute (1/N) Σ_i |a_i| ‖(w_i, b_i)‖, of which a neuron with a knot has |m_i| √(1 + t_i²).

    By the inequality of means it is at most half the mean of ‖θ_i‖², with equality if and only if
    all neurons are balanced, a_i² = w_i² + b_i². Gradient flow without noise multiplies the
    differences a_i² - w_i² - b_i² by exp(-2λt).

    Args:
      theta: rows (a_i, w_i, b_i), shape (N, 3).
    """
    return float(_costs(theta).mean())


@checked(x=_increasing, residuals=_checks.labels, ridge=_checks.positive_number)
def coefficients(
    x: Float[ArrayLike, " M"], residuals: Float[ArrayLike, " _"], *, ridge: float
) -> Coefficients:
    """Compute A and B of the curvature polynomial 1 + x² - (A x - B)² from the residuals.

        A = -(1/λ) Σ R_j,   B = -(1/λ) Σ R_j x_j,

    over the samples right of the interval for w > 0, left of it for w < 0. There
    Ψ = (λ/2)(a² + w²(1 + t²) + 2 a w (A t - B)) for a neuron with its knot at t, which as a
    quadratic form in (a, w) is positive definite if and only if the polynomial is positive at t.

    Args:
      x: inputs, shape (M,), increasing.
      residuals: R_j = (f(x_j) - y_j)/M, shape (M,).
      ridge: λ > 0.
    """
    _same_length(x, residuals)
    both = np.stack([residuals, residuals * x]) / -ridge
    left = np.concatenate([np.zeros((2, 1)), np.cumsum(both, axis=1)], axis=1)
    right = np.concatenate([np.cumsum(both[:, ::-1], axis=1)[:, ::-1], np.zeros((2, 1))], axis=1)
    return Coefficients(*np.stack([right, left], axis=1))


@checked(theta=_neurons, x=_increasing, share=_checks.non_negative_number)
def coefficients_of_neurons(
    theta: Float[ArrayLike, "N 3"], x: Float[ArrayLike, " M"], *, share: float = 0.001
) -> Coefficients:
    """Compute A and B from the neurons alone, as b/a and w/a.

    Where training without noise has come to rest, b_i = a_i A and w_i = a_i B for a neuron whose
    knot is inside of an interval. So A = Σ a_i b_i/Σ a_i² and B = Σ a_i w_i/Σ a_i², the sums over
    the neurons with their knot there. This is so wherever the gradient is 0, minimum or not.

    Args:
      theta: rows (a_i, w_i, b_i), shape (N, 3).
      x: inputs, shape (M,), increasing.
      share: neurons left out, as in `knots`.

    Returns: NaN where no other neuron has its knot.
    """
    a, w, b = _heavy(theta, share).T
    sums = np.zeros((3, 2, len(x) + 1))
    at = (w < 0).astype(int), np.searchsorted(x, -b / w)
    for total, values in zip(sums, (a * b, a * w, a * a), strict=True):
        np.add.at(total, at, values)
    with np.errstate(invalid="ignore"):
        return Coefficients(sums[0] / sums[2], sums[1] / sums[2])


@checked(x=_increasing, residuals=_checks.labels, at=_checks.labels, ridge=_checks.positive_number)
def curvature_polynomial(
    x: Float[ArrayLike, " M"],
    residuals: Float[ArrayLike, " _"],
    at: Float[ArrayLike, " points"],
    *,
    ridge: float,
) -> Float[np.ndarray, "2 points"]:
    """Evaluate 1 + t² - (A t - B)², with A and B of the interval in which t lies.

    It is (1 + t²)(1 - q²) at the two angles with their knot at t: 0 where |q| = 1.

    Args:
      x: inputs, shape (M,), increasing.
      residuals: R_j = (f(x_j) - y_j)/M, shape (M,).
      at: points t.
      ridge: λ > 0.

    Returns: the values for w > 0 and for w < 0.
    """
    found = coefficients(x, residuals, ridge=ridge)
    interval = np.searchsorted(x, at)
    return 1 + at**2 - (found.a[:, interval] * at - found.b[:, interval]) ** 2


@checked(x=_increasing, residuals=_checks.labels, ridge=_checks.positive_number)
def largest_q(
    x: Float[ArrayLike, " M"], residuals: Float[ArrayLike, " _"], *, ridge: float
) -> float:
    """Compute max_φ |q(φ)|, exactly: at most 1 if the curvature polynomial is nowhere negative.

    On an interval |q| = |A t - B|/√(1 + t²), which is largest at its ends, among them ±∞, or at
    t = -A/B, where it is √(A² + B²).

    Args:
      x: inputs, shape (M,), increasing.
      residuals: R_j = (f(x_j) - y_j)/M, shape (M,).
      ridge: λ > 0.
    """
    a, b = coefficients(x, residuals, ridge=ridge)
    ends = np.concatenate([[-np.inf], x, [np.inf]])
    with np.errstate(divide="ignore", invalid="ignore"):
        peak = -a / b
    is_inside = (ends[:-1] < peak) & (peak < ends[1:])
    at_inputs = np.concatenate([a[:, 1:] * x - b[:, 1:], a[:, :-1] * x - b[:, :-1]])
    candidates = (
        abs(at_inputs) / np.sqrt(1 + x**2),
        abs(a[:, [0, -1]]),
        np.hypot(a, b)[is_inside],
    )
    return float(np.concatenate([c.ravel() for c in candidates]).max())


@checked(theta=_neurons, x=_increasing, residuals=_checks.labels, ridge=_checks.positive_number)
def slackness(
    theta: Float[ArrayLike, "N 3"],
    x: Float[ArrayLike, " M"],
    residuals: Float[ArrayLike, " _"],
    *,
    ridge: float,
) -> float:
    """Average 1 - q(φ_i)² over the neurons, each with the weight |a_i| ‖(w_i, b_i)‖.

    It is the curvature polynomial divided by 1 + t², at the knots t_i. Where training without noise
    is at rest it is 0, also where F is not minimal; at a minimum `largest_q` is 1 besides.

    Args:
      theta: rows (a_i, w_i, b_i), shape (N, 3), not all of weight 0.
      x: inputs, shape (M,), increasing.
      residuals: R_j = (f(x_j) - y_j)/M, shape (M,).
      ridge: λ > 0.
    """
    _same_length(x, residuals)
    _, w, b = theta.T
    sums = np.maximum(np.outer(w, x) + b[:, None], 0) @ residuals / ridge
    costs = _costs(theta)
    q = np.divide(sums, np.hypot(w, b), out=np.zeros(len(w)), where=costs > 0)
    return float(np.average(1 - q**2, weights=costs))


@checked(x=_increasing, y=_checks.labels, residuals=_checks.labels, ridge=_checks.positive_number)
def lower_bound(
    x: Float[ArrayLike, " M"],
    y: Float[ArrayLike, " M"],
    residuals: Float[ArrayLike, " _"],
    *,
    ridge: float,
) -> float:
    """Bound F from below, over networks of any width, by weak duality.

        F(θ) >= -(M/2) ‖sR‖² - s R·y   for every s with s |q| <= 1

    for any vector R; s is chosen as well as possible. At the residuals of a minimum it is min F.

    Args:
      x: inputs, shape (M,), increasing.
      y: labels, shape (M,).
      residuals: any R, such as (f(x_j) - y_j)/M of a trained network, shape (M,).
      ridge: λ > 0.
    """
    _same_length(x, residuals)
    square, product = len(x) * residuals @ residuals, -float(residuals @ y)
    if square == 0 or product <= 0:
        return 0.0
    s = min(product / square, 1 / largest_q(x, residuals, ridge=ridge))
    return float(s * product - s**2 * square / 2)


def _same_length(x, residuals):
    if len(residuals) != len(x):
        raise ValueError(f"residuals: expected {len(x)}, one a sample, got {len(residuals)}")


@checked(
    x=_increasing,
    y=_checks.labels,
    ridge=_checks.positive_number,
    directions=_checks.positive_integer,
)
def convex_minimum(
    x: Float[ArrayLike, " M"],
    y: Float[ArrayLike, " M"],
    *,
    ridge: float,
    directions: int = 20_000,
) -> Float[np.ndarray, "atoms 3"]:
    """Minimise F over networks of any width whose neurons have their angle on a grid; no training.

        min_c (1/2M) Σ_j (f(x_j) - y_j)² + λ Σ_φ |c_φ|,   f(x) = Σ_φ c_φ (x cos φ + sin φ)_+,

    since λ/2 ‖θ_i‖² >= λ |a_i|‖(w_i, b_i)‖ with equality for balanced neurons. It is a lasso; as a
    knot at t with slope change m has |c| = |m| √(1 + t²), it is also λ Σ √(1 + t²) |m| and fit. Its
    dual is a projection: the point closest to -y/M with |q| <= 1 on the grid. Lawson and Hanson's
    least distance programming makes of that one problem of nonnegative least squares, which SciPy
    solves by an active set, to rounding. (Coordinate descent stalls on columns this alike.)

    Args:
      x: inputs, shape (M,), increasing.
      y: labels, shape (M,).
      ridge: λ > 0.
      directions: angles of the grid; those at which some neuron's knot is an input are added.

    Returns: balanced neurons (a, w, b), one for each c_φ that is not 0; a single 0 if all are.
    """
    kinks = np.arctan(-x) % np.pi
    grid = np.arange(directions) * 2 * np.pi / directions
    grid = np.unique(np.concatenate([grid, kinks, kinks + np.pi]))
    features = np.maximum(np.outer(x, np.cos(grid)) + np.sin(grid), 0)
    start = y @ features / len(y)
    rows = np.concatenate([-features.T, features.T])
    at_least = np.concatenate([-start, start]) - ridge
    system, right = np.vstack([rows.T, at_least]), np.zeros(len(x) + 1)
    right[-1] = 1
    solution, _ = scipy.optimize.nnls(system, right, maxiter=100 * len(grid))
    scale = 1 - at_least @ solution
    positive, negative = np.split(solution * len(x) / scale, 2)
    c = negative - positive
    used = np.flatnonzero(c)
    if not len(used):
        return np.zeros((1, 3))
    root = np.sqrt(len(used) * abs(c[used]))
    return (
        np.stack([np.sign(c[used]), np.cos(grid[used]), np.sin(grid[used])], axis=1) * root[:, None]
    )


@checked(
    x=_increasing,
    y=_checks.labels,
    ridge=_checks.positive_number,
    temperature=_checks.positive_number,
)
def mean_field_limit(
    x: Float[ArrayLike, " M"],
    y: Float[ArrayLike, " M"],
    *,
    ridge: float,
    temperature: float,
) -> MeanField:
    """Compute the limit of noisy training at rest, N → ∞, without training.

    The law ρ* ∝ exp(-Ψ/T) is Gaussian in a, and then in (w, b) of given angle. Integrated,

        Z = ∫ dφ/(1 - q²),   share of φ: 1/(Z (1 - q²)),   c(φ) = -(2T/(λZ)) q/(1 - q²)²,

    up to a constant in Z, if |q| < 1 everywhere. The residuals in q are those of ρ* itself, which
    are the maximum of the concave function -(M/2)‖R‖² - R·y - T log Z(R): as T → 0 the dual of the
    lasso, with T log Z as a barrier. Newton's method finds it, the temperature coming down to T.

    Args:
      x: inputs, shape (M,), increasing.
      y: labels, shape (M,).
      ridge: λ > 0.
      temperature: T > 0; below about 1e-8 λ ‖y‖ rounding in 1 - q² is felt.

    Raises:
      ValueError: Newton's method does not converge, as at too low a temperature.
    """
    # down from where all angles are about equally likely, by a factor of four at a time
    r, levels = np.zeros(len(x)), temperature * 4.0 ** np.arange(20)[::-1]
    for level in levels[levels <= max(1e3 * ridge, temperature)]:
        r = _newton(r, x, y, ridge, level)
    angles, lengths, q, _ = _on_the_circle(r, x, ridge, spacing=0.01)
    shares = lengths / (1 - q**2)
    z = shares.sum()
    weights = -2 * temperature / (ridge * z) * q * lengths / (1 - q**2) ** 2
    # at the ends of arcs nodes may change places by a rounding
    return MeanField(r, np.maximum.accumulate(angles), shares / z, weights)


def _newton(r, x, y, ridge, temperature):
    for _ in range(100):
        value, gradient, hessian = _dual(r, x, y, ridge, temperature)
        step = -np.linalg.solve(hessian, gradient)
        rise = gradient @ step
        if rise <= 1e-13 * (1 + abs(value)) * temperature:
            return r + step if np.isfinite(_dual(r + step, x, y, ridge, temperature)[0]) else r
        for _ in range(60):
            trial = _dual(r + step, x, y, ridge, temperature)[0]
            if trial >= value + 1e-4 * gradient @ step:
                break
            step = step / 2
        r = r + step
    raise ValueError(
        "temperature: expected one at which Newton's method converges, got "
        f"{temperature:.3g}, where it still rises by {rise:.2g} a step"
    )


def _dual(r, x, y, ridge, temperature):
    """-(M/2)‖R‖² - R·y - T log Z(R), its gradient and its Hessian; -∞ where |q| >= 1."""
    if largest_q(x, r, ridge=ridge) >= 1:
        return -np.inf, None, None
    _, lengths, q, features = _on_the_circle(r, x, ridge)
    gap = 1 - q**2
    z = (lengths / gap).sum()
    first = features @ (2 * q * lengths / gap**2) / z
    second = (features * ((2 / gap**2 + 8 * q**2 / gap**3) * lengths / z)) @ features.T
    value = -len(x) / 2 * r @ r - r @ y - temperature * np.log(z)
    gradient = -len(x) * r - y - temperature * first
    return (
        value,
        gradient,
        -len(x) * np.eye(len(x)) - temperature * (second - np.outer(first, first)),
    )


def _on_the_circle(r, x, ridge, spacing=0.04):
    """Nodes φ of a rule that resolves 1/(1 - q²), their lengths, q there, and ∂q/∂R_j."""
    # the double-exponential rule between all angles at which |q| can have a maximum
    u = np.arange(-3.2, 3.2 + spacing / 2, spacing)
    kinks = np.arctan(-x) % np.pi
    a, b = coefficients(x, r, ridge=ridge)
    with np.errstate(divide="ignore", invalid="ignore"):
        peaks = np.arctan(a / b)[np.hypot(a, b) > 0] % np.pi  # of |q| on an arc, knot at -A/B
    cuts = np.concatenate([kinks, peaks, kinks + np.pi, peaks + np.pi])
    cuts = np.unique(cuts)
    cuts = np.append(cuts, cuts[0] + 2 * np.pi)
    middle, half = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts) / 2
    inner = np.pi / 2 * np.sinh(u)
    weights = spacing * np.pi / 2 * np.cosh(u) / np.cosh(inner) ** 2
    angles = (middle[:, None] + half[:, None] * np.tanh(inner)).ravel()
    lengths = (half[:, None] * weights).ravel()
    features = np.maximum(np.outer(x, np.cos(angles)) + np.sin(angles), 0) / ridge
    return angles, lengths, r @ features, features


@checked(theta=_neurons)
def angle_quantiles(limit: MeanField, theta: Float[ArrayLike, "N 3"]) -> Float[np.ndarray, " N"]:
    """Compute where the angles of neurons lie in the law of the limit, from 0 to 1.

    Neurons that are drawn from the limit have independent uniform ones.

    Args:
      limit: as `mean_field_limit` returns it.
      theta: rows (a_i, w_i, b_i), shape (N, 3).
    """
    _, w, b = theta.T
    first = limit.angles[0]
    return np.interp(
        first + (np.arctan2(b, w) - first) % (2 * np.pi), limit.angles, np.cumsum(limit.shares)
    )


@checked(low=_checks.real_number, high=_checks.real_number)
def knot_width(limit: MeanField, low: float, high: float) -> float:
    """Compute the width of a knot of the limit: the middle half of |f''| between two points.

    Args:
      limit: as `mean_field_limit` returns it.
      low: where to begin.
      high: where to end, so that one knot lies in between.

    Returns: the distance between the quartiles of the measure |f''| restricted to (low, high).
    """
    positions, changes = -np.tan(limit.angles), abs(limit.weights * np.cos(limit.angles))
    inside = (low < positions) & (positions < high)
    at, below = np.sort(positions[inside]), 0.0
    for side in (np.cos(limit.angles) > 0, np.cos(limit.angles) < 0):
        order = np.argsort(positions[inside & side])
        mass = changes[inside & side][order]
        # half of its own mass lies left of a node
        below = below + np.interp(at, positions[inside & side][order], np.cumsum(mass) - mass / 2)
    lower, upper = np.interp([0.25, 0.75], (below - below[0]) / np.ptp(below), at)
    return float(upper - lower)
