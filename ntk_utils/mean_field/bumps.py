"""Bumps that learn a density on the unit cube: the network, its training, and its limit.

A network of N neurons that is a mean of equal bumps, whose centres w_i alone are trained,

    f̂(x) = (1/N) Σ_i K^δ(x - w_i),   K^δ(x) = δ^-d K(x/δ),   K(u) = c_d (1 - |u|²)³ for |u| < 1,

else 0, with c_d such that ∫ K = 1; x and all w_i are in Ω = [0, 1]^d, of volume 1. The risk is
R = ∫_Ω (f - f̂)² dx, the mean over a uniform x. Time is that of w_i' = -N ∂(R/2)/∂w_i, in which the
factors N and ½ are chosen such that the velocity of a centre does not depend on N.

As N → ∞ and then δ → 0, the density ρ of the centres follows a porous-medium equation, with a
viscosity τ if noise is injected into the steps.

Source: Javanmard, Mondelli, Montanari (Annals of Statistics 48(6), 2020, arXiv:1901.01375). The
  choices of K, of Ω, of its boundary and of the unit of time are ours.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate
import scipy.linalg
import scipy.stats
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils._progress import progress_bar
from ntk_utils._random import normal, uniform


class Path(NamedTuple):
    """What training returns: the centres and the risk, at the start and at each recorded step."""

    times: Float[np.ndarray, " records"]
    """t = ε k after k steps of size ε"""
    centres: Float[np.ndarray, "records N d"]
    """w_1, …, w_N"""
    risks: Float[np.ndarray, " records"]
    """R, by the midpoint rule"""


class Densities(NamedTuple):
    """A solution of the porous-medium equation, at the times that were asked for."""

    times: Float[np.ndarray, " times"]
    """t, increasing, the first one 0"""
    density: Float[np.ndarray, "times n"]
    """the mean of ρ over each of n equal cells of [0, 1]"""
    risks: Float[np.ndarray, " times"]
    """∫ (f - ρ)² dx"""


def _width(name: str, value) -> float:
    """δ: a positive number; at most 1, the side of the cube."""
    delta = _checks.positive_number(name, value)
    if delta > 1:
        raise ValueError(f"{name}: expected a number <= 1, the side of the cube, got {value}")
    return delta


def _in_the_cube(name: str, value):
    """Points of [0, 1]^d, shape (n, d)."""
    points = _checks.inputs(name, value)
    outside = int(((points < 0) | (points > 1)).any(axis=1).sum())
    if outside:
        raise ValueError(f"{name}: expected points of [0, 1]^d, got {outside} outside")
    return points


@checked(n=_checks.positive_integer, dim=_checks.positive_integer)
def midpoints(n: int, dim: int = 1) -> Float[np.ndarray, "points d"]:
    """Return the midpoints of the n^d equal cells of [0, 1]^d, at which targets are given.

    Args:
      n: cells along each side.
      dim: d.

    Returns: shape (n^d, d), the last coordinate running fastest.
    """
    side = (np.arange(n) + 0.5) / n
    return np.stack(np.meshgrid(*dim * [side], indexing="ij"), axis=-1).reshape(-1, dim)


@checked(x=_in_the_cube, alpha=_checks.positive_number)
def concave(x: Float[ArrayLike, "n d"], alpha: float) -> Float[np.ndarray, " n"]:
    """Compute f(x) = 1 + dα/24 - (α/2) |x - c|², c = (½, …, ½): strongly concave, ∫_Ω f = 1.

    f + (α/2) |x|² is linear, so α is the modulus exactly; f > 0 in the cube if α < 12/d.

    Args:
      x: points of [0, 1]^d, shape (n, d).
      alpha: the modulus α, at most 12/d.

    Raises:
      ValueError: a modulus for which f is negative in the corners; points outside of the cube.
    """
    dim = x.shape[1]
    if alpha > 12 / dim:
        raise ValueError(f"alpha: expected at most 12/d = {12 / dim:.3g}, got {alpha:.3g}")
    return 1 + dim * alpha / 24 - alpha / 2 * ((np.asarray(x) - 0.5) ** 2).sum(axis=1)


@checked(x=_in_the_cube, valley=_checks.positive_number)
def two_peaks(x: Float[ArrayLike, "n d"], valley: float) -> Float[np.ndarray, " n"]:
    """Compute f(x) = v + ½ (1 - v) (K^0.2(x_1 - 0.27) + K^0.2(x_1 - 0.78)), K in one dimension.

    Positive and ∫_Ω f = 1, but not concave: between two ridges f falls to v.

    Args:
      x: points of [0, 1]^d, shape (n, d).
      valley: v, less than 1.

    Raises:
      ValueError: a valley that is none; points outside of the cube.
    """
    if valley >= 1:
        raise ValueError(f"valley: expected a number < 1, got {valley}")
    ridges = jnp.array([[0.27], [0.78]])
    return valley + (1 - valley) * np.asarray(_mixture(jnp.asarray(x)[:, :1], ridges, 0.2))


@checked(
    left=_checks.non_negative_number, right=_checks.positive_number, n=_checks.positive_integer
)
def box(left: float, right: float, n: int) -> Float[np.ndarray, " n"]:
    """Return the uniform density on [left, right], its mean over each of n equal cells of [0, 1].

    Args:
      left: left end, at least 0.
      right: right end, at most 1.
      n: cells.

    Raises:
      ValueError: ends that are not in this order.
    """
    if not 0 <= left < right <= 1:
        raise ValueError(f"left: expected 0 <= left < right <= 1, got {left} and {right}")
    return n * np.diff(np.clip(np.linspace(0, 1, n + 1), left, right)) / (right - left)


@checked(
    key=_checks.random_key,
    n=_checks.positive_integer,
    dim=_checks.positive_integer,
    noise=_checks.non_negative_number,
)
def noisy_samples(
    key, f: Callable, n: int, dim: int, noise: float
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
    """Draw x uniform on [0, 1]^d and y = f(x) + σ ξ, ξ standard Gaussian, for `sgd`.

    Args:
      key: a random key of JAX.
      f: takes points, shape (n, d), and returns n values.
      n: the number of samples.
      dim: d.
      noise: σ >= 0.

    Returns: x, shape (n, d), and y, shape (n,). Two keys: x does not depend on σ, nor does ξ.
    """
    key_x, key_y = jax.random.split(key)
    x = uniform(key_x, (n, dim))
    return x, np.asarray(f(x)) + noise * normal(key_y, (n,))


@checked(x=_checks.inputs, centres=_in_the_cube, delta=_width)
def mixture(
    x: Float[ArrayLike, "n d"], centres: Float[ArrayLike, "N d"], delta: float
) -> Float[Array, " n"]:
    """Compute the network, f̂(x) = (1/N) Σ_i K^δ(x - w_i).

    Args:
      x: points, shape (n, d).
      centres: w_1, …, w_N in [0, 1]^d, shape (N, d).
      delta: the radius δ of the bumps, at most 1.

    Returns: f̂ at the points, shape (n,). Bumps near the boundary of the cube reach out of it.

    Raises:
      ValueError: points and centres of different dimensions, centres outside of the cube.
    """
    if x.shape[1] != centres.shape[1]:
        raise ValueError(f"x: expected {centres.shape[1]} columns, got shape {x.shape}")
    return _mixture(jnp.asarray(x), jnp.asarray(centres), delta)


@checked(centres=_in_the_cube, target=_checks.labels, delta=_width)
def risk(
    centres: Float[ArrayLike, "N d"], target: Float[ArrayLike, " points"], delta: float
) -> float:
    """Compute R = ∫_Ω (f - f̂)² dx by the midpoint rule.

    Args:
      centres: w_1, …, w_N in [0, 1]^d, shape (N, d).
      target: f at `midpoints(n, d)`, shape (n^d,); cells of δ/5 or less (trained centres fit the
        midpoints: with cells of δ/3 in three dimensions R was found 20 % too small).
      delta: the radius δ of the bumps.

    Raises:
      ValueError: a target that is no n^d numbers, centres outside of the cube.
    """
    return float(_risk(jnp.asarray(centres), _points_of(target, centres), target, delta))


@checked(
    centres=_in_the_cube,
    target=_checks.labels,
    delta=_width,
    step_size=_checks.positive_number,
    steps=_checks.positive_integer,
    record_every=_checks.positive_integer,
    viscosity=_checks.non_negative_number,
    key=_checks.none_or(_checks.random_key),
)
def flow(
    centres: Float[ArrayLike, "N d"],
    target: Float[ArrayLike, " points"],
    *,
    delta: float,
    step_size: float,
    steps: int,
    record_every: int,
    viscosity: float = 0.0,
    key: Array | None = None,
) -> Path:
    """Follow the gradient of the risk by projected steps, with noise if the viscosity is not 0.

        w_i ← P(w_i - ε N ∂(R/2)/∂w_i + √(2ετ) ξ_i),   ξ_i standard Gaussian,
        -N ∂(R/2)/∂w_i = ∫_Ω (f - f̂)(x) ∇_w K^δ(x - w_i) dx,   P the projection onto [0, 1]^d

    Explicit Euler: gradient flow as ε → 0, of the risk as the midpoint rule has it. Without noise R
    cannot rise: a recorded risk that is above the one before shows that ε is too large.

    A run of more than two seconds shows a progress bar.

    Args:
      centres: w_1, …, w_N to start from, in [0, 1]^d, shape (N, d).
      target: f at `midpoints(n, d)`, shape (n^d,).
      delta: the radius δ of the bumps.
      step_size: ε.
      steps: their number, a multiple of `record_every`.
      record_every: steps from one recorded state to the next.
      viscosity: τ >= 0.
      key: a random key of JAX; needed for τ > 0.

    Raises:
      ValueError: a step size at which the risk rises without noise; τ > 0 without a key; `steps`
        that are no multiple of `record_every`; a target that is no n^d numbers, centres outside of
        the cube.
    """
    if viscosity > 0 and key is None:
        raise ValueError("key: expected a random key for a viscosity > 0, got None")
    points, target = _points_of(target, centres), jnp.asarray(target)

    def advance(w, done):
        of_part = None if viscosity == 0 else jax.random.fold_in(key, done)
        noise = math.sqrt(2 * step_size * viscosity)
        return _flow(w, points, target, delta, step_size, record_every, noise, of_part)

    path = _recorded(advance, centres, points, target, delta, step_size, steps, record_every)
    rises = np.flatnonzero(~(np.diff(path.risks) <= 1e-9 * path.risks[0]))
    if rises.size and viscosity == 0:
        raise ValueError(
            f"step_size: expected one at which the risk falls, got {step_size:.3g}: it rose "
            f"between t = {path.times[rises[0]]:.3g} and {path.times[rises[0] + 1]:.3g}"
        )
    return path


@checked(
    centres=_in_the_cube,
    x=_in_the_cube,
    y=_checks.labels,
    target=_checks.labels,
    delta=_width,
    step_size=_checks.positive_number,
    record_every=_checks.positive_integer,
)
def sgd(
    centres: Float[ArrayLike, "N d"],
    x: Float[ArrayLike, "steps d"],
    y: Float[ArrayLike, " steps"],
    target: Float[ArrayLike, " points"],
    *,
    delta: float,
    step_size: float,
    record_every: int,
) -> Path:
    """Train by projected online SGD: one step for each sample, which is not used again.

        w_i ← P(w_i + ε (y_k - f̂(x_k)) ∇_w K^δ(x_k - w_i)),   P the projection onto [0, 1]^d

    For x uniform on the cube and y = f(x) + noise of mean 0, the mean step is that of `flow`.

    A run of more than two seconds shows a progress bar.

    Args:
      centres: w_1, …, w_N to start from, in [0, 1]^d, shape (N, d).
      x: samples in [0, 1]^d, shape (steps, d).
      y: labels, shape (steps,).
      target: f at `midpoints(n, d)`, shape (n^d,), from which the recorded risks are computed.
      delta: the radius δ of the bumps.
      step_size: ε.
      record_every: steps from one recorded state to the next; divides their number.

    Raises:
      ValueError: a number of samples that is no multiple of `record_every`; samples and centres of
        different dimensions, or outside of the cube; a target that is no n^d numbers.
    """
    if x.shape[1] != centres.shape[1]:
        raise ValueError(f"x: expected {centres.shape[1]} columns, got shape {x.shape}")
    points, target = _points_of(target, centres), jnp.asarray(target)

    def advance(w, done):
        batch = slice(done, done + record_every)
        return _sgd(w, x[batch], y[batch], delta, step_size)

    return _recorded(advance, centres, points, target, delta, step_size, len(x), record_every)


@checked(
    centres=_in_the_cube,
    n=_checks.positive_integer,
    delta=_width,
    step_size=_checks.positive_number,
    variance=_checks.positive_number,
)
def noise_floor(
    centres: Float[ArrayLike, "N d"], n: int, *, delta: float, step_size: float, variance: float
) -> float:
    """Predict by how much noisy labels raise the risk at which online SGD ends.

        ½ ε σ² (1/N) Σ_i ∫_Ω |∇K^δ(x - w_i)|² dx

    Close to where the gradient vanishes, the step at the sample x_k changes f̂(x) by
    ε A(x, x_k) (f - f̂ + noise)(x_k), A(x, z) = (1/N) Σ_i ∇K^δ(x - w_i)·∇K^δ(z - w_i). The
    covariance C of f̂ is stationary if A C + C A = ε σ² A², so C = ½ ε σ² A, whose trace this is. It
    depends on N only through where the centres are. To first order in ε. Derived here.

    Args:
      centres: w_1, …, w_N in [0, 1]^d, close to where training without noise ends, shape (N, d).
      n: cells along each side of the cube, for the midpoint rule.
      delta: the radius δ of the bumps.
      step_size: ε.
      variance: σ², of the noise in the labels.
    """
    x, w = jnp.asarray(midpoints(n, centres.shape[1])), jnp.asarray(centres)
    squares = (_slopes(x, w, delta) ** 2 * _squared_distances(x, w)).sum() / (len(x) * len(w))
    return 0.5 * step_size * variance * float(squares)


@checked(
    density=_checks.labels,
    target=_checks.labels,
    times=_checks.times,
    viscosity=_checks.non_negative_number,
)
def porous_medium(
    density: Float[ArrayLike, " n"],
    target: Float[ArrayLike, " n"],
    times: Float[ArrayLike, " times"],
    *,
    viscosity: float = 0.0,
) -> Densities:
    """Solve the viscous porous-medium equation on [0, 1] without flux through the ends.

        ∂_t ρ = ½ ∂_xx(ρ²) - ∂_x(ρ ∂_x f) + τ ∂_xx ρ = -∂_x(ρ v - τ ∂_x ρ),   v = -∂_x(ρ - f)

    It is the gradient flow, in the Wasserstein distance, of ½ ∫ (ρ - f)² + τ ∫ ρ log ρ. Finite
    volumes: the flux between two cells has v by a difference and ρ from the cell it comes from, so
    that mass is conserved, densities stay non-negative, and for τ = 0 the risk never rises; it is
    accurate to first order in the width 1/n of a cell. In time SciPy's LSODA integrates.

    Args:
      density: ρ at t = 0, its mean over each of n equal cells, non-negative, shape (n,).
      target: f at `midpoints(n)`, shape (n,).
      times: when to record, increasing from 0.
      viscosity: τ >= 0.

    Raises:
      ValueError: densities that are negative, or not as many as the target has values; times that
        do not increase from 0; a time that the integrator does not reach.
    """
    if len(density) != len(target):
        raise ValueError(f"density: expected {len(target)} cells, got {len(density)}")
    if (density < 0).any():
        raise ValueError(f"density: expected no negative entries, got {density.min():.3g}")
    n = len(target)

    def change(_, rho):
        v = -n * np.diff(rho - target)
        flux = np.where(v > 0, rho[:-1], rho[1:]) * v - viscosity * n * np.diff(rho)
        return -n * np.diff(flux, prepend=0.0, append=0.0)

    solved = scipy.integrate.solve_ivp(
        change, times[[0, -1]], density, "LSODA", times, rtol=1e-6, atol=1e-9, lband=1, uband=1
    )
    if not solved.success:
        reached = solved.t[-1] if solved.t.size else 0.0
        raise ValueError(
            f"times: expected some that the integrator reaches, got {times[-1]:.3g}: "
            f"{solved.message} at {reached:.3g}"
        )
    return Densities(times, solved.y.T, ((solved.y.T - target) ** 2).mean(axis=1))


@checked(centres=_in_the_cube, density=_checks.labels)
def transport_distance(centres: Float[ArrayLike, "N 1"], density: Float[ArrayLike, " n"]) -> float:
    """Compute W_1 between the centres and a density on [0, 1].

        W_1 = ∫_0^1 |F_N(x) - F(x)| dx,   F_N and F the distribution functions

    the mean distance by which mass has to be moved to turn one into the other. The mass of a cell
    counts as lying at its midpoint, which is off by at most 1/(4n).

    Args:
      centres: w_1, …, w_N in [0, 1], shape (N, 1).
      density: its mean over each of n equal cells, non-negative and not all 0, shape (n,).

    Raises:
      ValueError: centres in more dimensions than one, or a density that is negative or 0.
    """
    if centres.shape[1] != 1:
        raise ValueError(f"centres: expected one column, got shape {centres.shape}")
    if (density < 0).any() or not density.any():
        raise ValueError(f"density: expected some mass and none negative, got {density}")
    points = midpoints(len(density))[:, 0]
    w = np.asarray(centres)[:, 0]
    return float(scipy.stats.wasserstein_distance(w, points, v_weights=density))


@checked(target=_checks.labels)
def slowest_rate(target: Float[ArrayLike, " n"]) -> float:
    """Compute the rate λ_1 at which ρ - f dies out near ρ = f, on [0, 1].

        u = ρ - f small:  ∂_t u = ∂_x(f ∂_x u),  -∂_x(f ∂_x u_1) = λ_1 u_1,  f ∂_x u_1 = 0 at 0, 1

    λ_1 is the smallest eigenvalue other than that of constants, so that the risk of
    `porous_medium` falls as e^{-2 λ_1 t} in the end, unless it starts without u_1, as from a
    symmetric ρ for a symmetric f. It is π² for f = 1. For f = c - α (x - ½)²/2
    that vanishes at both ends it is α, with u_1 = x - ½ (Legendre's equation); α = 12 if ∫ f = 1.
    By finite volumes with 1/n wide cells. Derived here.

    Args:
      target: f at `midpoints(n)`, positive, shape (n,), n >= 2.

    Raises:
      ValueError: fewer than two values, or one that is not positive.
    """
    if len(target) < 2 or target.min() <= 0:
        raise ValueError(f"target: expected two or more positive numbers, got {target}")
    between = len(target) ** 2 * (target[1:] + target[:-1]) / 2
    diagonal = np.append(between, 0.0) + np.insert(between, 0, 0.0)
    select = {"select": "i", "select_range": (1, 1)}
    return float(scipy.linalg.eigvalsh_tridiagonal(diagonal, -between, **select)[0])


def _points_of(target, centres):
    """The midpoints at which a target in as many dimensions as the centres is given."""
    dim = centres.shape[1]
    n = round(len(target) ** (1 / dim))
    if n**dim != len(target):
        raise ValueError(
            f"target: expected n^{dim} values, one a cell of the cube, got {len(target)}"
        )
    return jnp.asarray(midpoints(n, dim))


def _recorded(advance, centres, points, target, delta, step_size, steps, record_every) -> Path:
    """Call `advance(w, steps done)` once a record, and keep where it gets to."""
    if steps % record_every:
        raise ValueError(
            f"record_every: expected a divisor of the {steps} steps, got {record_every}"
        )
    path = [jnp.asarray(centres)]
    with progress_bar(steps, unit=" steps", delay=2) as bar:
        for done in range(0, steps, record_every):
            path.append(advance(path[-1], done))
            bar.update(record_every)
    risks = [float(_risk(w, points, target, delta)) for w in path]
    times = step_size * record_every * np.arange(len(path))
    return Path(times, np.stack(list(map(np.asarray, path))), np.array(risks))


def _height(dim, delta):
    """c_d δ^-d: the height of a bump."""
    return math.gamma(dim / 2 + 4) / (6 * math.pi ** (dim / 2)) / delta**dim


def _squared_distances(x, w):
    """|x_q - w_i|², shape (n, N)."""
    return jnp.maximum((x**2).sum(1)[:, None] + (w**2).sum(1)[None, :] - 2 * x @ w.T, 0.0)


def _mixture(x, w, delta):
    inside = jnp.maximum(1 - _squared_distances(x, w) / delta**2, 0.0)
    return _height(x.shape[1], delta) * (inside**3).mean(axis=1)


def _slopes(x, w, delta):
    """The s with ∇_w K^δ(x_q - w_i) = s_qi (x_q - w_i), shape (n, N)."""
    inside = jnp.maximum(1 - _squared_distances(x, w) / delta**2, 0.0)
    return 6 * _height(x.shape[1], delta) / delta**2 * inside**2


def _force(x, w, residual, delta):
    """Σ_q residual_q ∇_w K^δ(x_q - w_i), shape (N, d)."""
    weighted = residual[:, None] * _slopes(x, w, delta)
    return weighted.T @ x - weighted.sum(axis=0)[:, None] * w


@jax.jit
def _risk(w, points, target, delta):
    return ((target - _mixture(points, w, delta)) ** 2).mean()


@functools.partial(jax.jit, static_argnums=5)
def _flow(w, points, target, delta, step_size, steps, noise, key):
    def one_step(w, number):
        residual = (target - _mixture(points, w, delta)) / len(points)
        moved = w + step_size * _force(points, w, residual, delta)
        if key is not None:
            moved += noise * jax.random.normal(jax.random.fold_in(key, number), w.shape)
        return jnp.clip(moved, 0.0, 1.0), None

    return jax.lax.scan(one_step, w, jnp.arange(steps))[0]


@jax.jit
def _sgd(w, x, y, delta, step_size):
    def one_step(w, sample):
        x, y = sample[0][None], sample[1][None]
        residual = y - _mixture(x, w, delta)
        return jnp.clip(w + step_size * _force(x, w, residual, delta), 0.0, 1.0), None

    return jax.lax.scan(one_step, w, (x, y))[0]
