"""Two-layer networks as means over neurons: what dropping neurons does, and a path without hills.

A network of N neurons θ_i = (a_i, w_i), w_i in R^D, without biases, is

    f(x) = (s/N) Σ_i a_i σ(w_i·x),   σ(z) = erf(z/√2),

with s = 1 in the mean-field scaling and s = √N in that of the neural tangent kernel. The loss is
L = E (y - f(x))², over the law of (x, y). As a function of a, for given w, it is a quadratic form
that is made of the moments G_ij = E σ(w_i·x) σ(w_j·x), h_i = E y σ(w_i·x) and c = E y². Where they
are known exactly, so is L.

The unit of time: θ_i' = -(N/s²) ∂(L/2)/∂θ_i. The velocity of f then depends neither on N nor on s.

Source: Shevchenko, Mondelli (ICML 2020, arXiv:1912.10095). The choice of σ, of the laws of (x, y)
  and of the unit of time are ours.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.stats
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils._progress import progress_bar
from ntk_utils._random import normal, uniform

_LARGEST = 40
"""Eigenvalues of C that are followed one by one; of the others only their sum."""


class Network(NamedTuple):
    """The neurons of a network f(x) = (s/N) Σ_i a_i σ(w_i·x)."""

    a: Float[ArrayLike, " N"]
    """output weights a_i"""
    w: Float[ArrayLike, "N D"]
    """incoming weights w_i"""
    scale: float = 1.0
    """s; it stays what it is when neurons are dropped: the others are rescaled by N/M"""


class Teacher(NamedTuple):
    """A law of (x, y): x ~ N(0, I_D) and y = Σ_k b_k σ(v_k·x), for which the moments are exact."""

    b: Float[ArrayLike, " k"]
    """b_k"""
    v: Float[ArrayLike, "k D"]
    """v_k"""

    @property
    def dim(self) -> int:
        """D, the number of inputs."""
        return np.shape(self.v)[1]


class Samples(NamedTuple):
    """A law of (x, y): one of n samples, each with probability 1/n."""

    x: Float[ArrayLike, "n D"]
    """samples"""
    y: Float[ArrayLike, " n"]
    """their labels"""

    @property
    def dim(self) -> int:
        """D, the number of inputs."""
        return np.shape(self.x)[1]


class Moments(NamedTuple):
    """What makes L for given w: L = p·G p - 2 p·h + c with p_i = s a_i/N."""

    g: Float[Array, "N N"]
    """G_ij = E σ(w_i·x) σ(w_j·x)"""
    h: Float[Array, " N"]
    """h_i = E y σ(w_i·x)"""
    c: Float[Array, ""]
    """E y²"""


class ChangeLaw(NamedTuple):
    """L_M - L_N over uniformly random subsets of M of the N neurons."""

    mean: float
    """E (L_M - L_N), exact"""
    sd_linear: float
    """standard deviation of 2⟨f_N - y, f_M - f_N⟩, the part of first order, exact"""
    mean_absolute: float
    """E |L_M - L_N|, for large M and N - M"""


def _pair(kind, name, value):
    """A one-dimensional and a two-dimensional array of the same length, in a `kind`."""
    fields = dict(zip(kind._fields, value, strict=True))
    for field, entry in fields.items():
        if field != "scale":
            check = _checks.inputs if field in ("w", "v", "x") else _checks.labels
            fields[field] = jnp.asarray(check(f"{name}.{field}", entry))
    one, two = list(fields.values())[:2]
    if len(one) != len(two):
        raise ValueError(f"{name}: expected as many weights as rows, got {len(one)} and {len(two)}")
    return kind(**fields)


def _network(name: str, value) -> Network:
    """A network, its weights in float64."""
    network = _pair(Network, name, _checks.instance_of(Network)(name, value))
    return network._replace(scale=_checks.positive_number(f"{name}.scale", network.scale))


def _law(name: str, value) -> Teacher | Samples:
    """A law of (x, y)."""
    if not isinstance(value, Teacher | Samples):
        raise TypeError(f"{name}: expected Teacher or Samples, got {type(value).__name__}")
    return _pair(type(value), name, value)


def _share(name: str, value) -> float:
    """A number from 0 to 1."""
    if not 0 <= _checks.real_number(name, value, " from 0 to 1") <= 1:
        raise ValueError(f"{name}: expected a finite number from 0 to 1, got {value}")
    return float(value)


def _networks(name: str, value) -> list[Network]:
    """One network or more."""
    networks = [_network(f"{name}[{i}]", n) for i, n in enumerate(_checks.iterable(name, value))]
    if not networks:
        raise ValueError(f"{name}: expected at least one network, got none")
    return networks


def _same_dim(network: Network, law: Teacher | Samples, name: str = "network") -> None:
    if network.w.shape[1] != law.dim:
        raise ValueError(
            f"{name}: expected weights w of {law.dim} columns, got shape {network.w.shape}"
        )


@checked(
    key=_checks.random_key,
    n=_checks.positive_integer,
    dim=_checks.positive_integer,
    scale=_checks.positive_number,
    shared=_share,
)
def draw_network(key, n: int, dim: int, *, scale: float = 1.0, shared: float = 0.0) -> Network:
    """Draw N neurons independently: a_i uniform on [-1, 1], w_i ~ N(0, I_D/D).

    For |x|² of the order D, as for x ~ N(0, I_D), w_i·x is of order 1.

    Args:
      key: a random key of JAX.
      n: N.
      dim: D.
      scale: s, 1 in the mean-field scaling and √N in that of the neural tangent kernel.
      shared: a number c from 0 to 1, for neurons that are not independent:
        w_i = √(1-c) z_i + √c u with one u for all of them, u and z_i ~ N(0, I_D/D). The law of a
        single neuron is the same for every c.

    Raises:
      ValueError: a share that is not from 0 to 1.
    """
    key_a, key_w = jax.random.split(key)
    a, z = 2 * uniform(key_a, (n,)) - 1, normal(key_w, (n + 1, dim)) / np.sqrt(dim)
    w = np.sqrt(1 - shared) * z[1:] + np.sqrt(shared) * z[:1]
    return Network(_checks.on_device(a), _checks.on_device(w), scale)


@checked(law=_law, key=_checks.random_key, n=_checks.positive_integer)
def draw_samples(
    law: Teacher | Samples, key, n: int
) -> tuple[Float[Array, "n D"], Float[Array, " n"]]:
    """Draw n independent pairs (x, y), for `sgd`.

    Args:
      law: of (x, y).
      key: a random key of JAX.
      n: how many.

    Returns: x, shape (n, D), and y, shape (n,).
    """
    if isinstance(law, Samples):
        rows = jax.random.randint(key, (n,), 0, len(law.y))
        return law.x[rows], law.y[rows]
    x = _checks.on_device(normal(key, (n, law.v.shape[1])))
    return x, sigma(x @ law.v.T) @ law.b


@checked(law=_law, w=_checks.inputs)
def moments(law: Teacher | Samples, w: Float[ArrayLike, "N D"]) -> Moments:
    """Compute G, h and c.

    For a teacher E σ(u·x) σ(v·x) = (2/π) arcsin(u·v/√((1+|u|²)(1+|v|²))), exactly; for samples the
    expectations are means over them.

    Args:
      law: of (x, y).
      w: incoming weights, shape (N, D).

    Raises:
      ValueError: weights that do not fit x.
    """
    _same_dim(Network(w[:, 0], w), law, "w")
    return _moments(law, jnp.asarray(w))


@checked(network=_network, law=_law)
def loss(network: Network, law: Teacher | Samples) -> float:
    """Compute L = E (y - f(x))².

    Args:
      network: its neurons.
      law: of (x, y).

    Raises:
      ValueError: weights that do not fit x.
    """
    _same_dim(network, law)
    return float(_loss(network, law))


@checked(network=_network, other=_network, law=_law)
def distance(network: Network, other: Network, law: Teacher | Samples) -> float:
    """Compute √(E (f(x) - f'(x))²) between two networks.

    Args:
      network: f.
      other: f', of as many neurons or not.
      law: of x.

    Raises:
      ValueError: weights that do not fit x.
    """
    _same_dim(network, law)
    _same_dim(other, law, "other")
    p = jnp.concatenate([_coefficients(network), -_coefficients(other)])
    g = _moments(law, jnp.concatenate([network.w, other.w])).g
    return float(jnp.sqrt(jnp.maximum(p @ g @ p, 0.0)))


@checked(
    network=_network,
    x=_checks.inputs,
    y=_checks.labels,
    step_size=_checks.positive_number,
    record_every=_checks.none_or(_checks.positive_integer),
)
def sgd(
    network: Network,
    x: Float[ArrayLike, "steps D"],
    y: Float[ArrayLike, " steps"],
    *,
    step_size: float,
    record_every: int | None = None,
) -> tuple[Network, ...]:
    """Train by one step for each sample, in their order.

        θ_i ← θ_i - α (N/s²) ∂/∂θ_i ½ (y_k - f(x_k))²

    For independent samples, each used once, the mean step is that of `flow`; after k steps the time
    is t = α k. A run of more than two seconds shows a progress bar.

    Args:
      network: to start from.
      x: samples, shape (steps, D).
      y: labels, shape (steps,).
      step_size: α.
      record_every: steps from one returned network to the next; divides their number. By default
        all of them.

    Returns: the networks, at the start and after each `record_every` steps.

    Raises:
      ValueError: a step size at which the weights overflow; a number of samples that is no multiple
        of `record_every`; weights that do not fit x.
    """
    _same_dim(network, Samples(x, y))
    every, x, y = record_every or len(y), jnp.asarray(x), jnp.asarray(y)

    def advance(network, done):
        return _sgd(network, x[done : done + every], y[done : done + every], step_size)

    return _recorded(advance, network, len(y), every, step_size)


@checked(
    network=_network,
    law=_law,
    key=_checks.random_key,
    time=_checks.non_negative_number,
    step_size=_checks.positive_number,
    n_samples=_checks.none_or(_checks.positive_integer),
)
def train(
    network: Network,
    law: Teacher | Samples,
    key,
    *,
    time: float,
    step_size: float,
    n_samples: int | None = None,
) -> Network:
    """Train by `sgd` on independent samples of a law up to the time t.

    These are k = t/α steps, rounded; for less than half a step the network stays as it is.

    Args:
      network: to start from.
      law: of (x, y).
      key: a random key of JAX, for the samples.
      time: t.
      step_size: α.
      n_samples: so many samples, used over and over in the same order. By default one for each
        step, which is one-pass SGD.

    Raises:
      ValueError: a step size at which the weights overflow; weights that do not fit x.
    """
    _same_dim(network, law)
    steps = round(time / step_size)
    if steps == 0:
        return network
    x, y = draw_samples(law, key, n_samples or steps)
    if n_samples:
        used = np.arange(steps) % n_samples
        x, y = x[used], y[used]
    return sgd(network, x, y, step_size=step_size)[-1]


@checked(
    network=_network,
    law=_law,
    step_size=_checks.positive_number,
    steps=_checks.positive_integer,
    record_every=_checks.none_or(_checks.positive_integer),
)
def flow(
    network: Network,
    law: Teacher | Samples,
    *,
    step_size: float,
    steps: int,
    record_every: int | None = None,
) -> tuple[Network, ...]:
    """Follow the gradient of the loss, θ_i' = -(N/s²) ∂(L/2)/∂θ_i, by Euler's steps of size h.

    The error is of first order in h. A run of more than two seconds shows a progress bar.

    Args:
      network: to start from.
      law: of (x, y).
      step_size: h.
      steps: their number.
      record_every: steps from one returned network to the next; divides their number. By default
        all of them.

    Returns: the networks, at the start and after each `record_every` steps.

    Raises:
      ValueError: a step size at which the weights overflow; `steps` that are no multiple of
        `record_every`; weights that do not fit x.
    """
    _same_dim(network, law)
    every = record_every or steps
    return _recorded(lambda n, _: _flow(n, law, step_size, every), network, steps, every, step_size)


@checked(
    key=_checks.random_key,
    n=_checks.positive_integer,
    kept=_checks.positive_integer,
    n_subsets=_checks.positive_integer,
)
def random_subsets(key, n: int, kept: int, n_subsets: int) -> Bool[np.ndarray, "subsets N"]:
    """Draw subsets of M of N neurons, each uniformly from all of them, independently.

    Args:
      key: a random key of JAX.
      n: N.
      kept: M, at most N.
      n_subsets: how many.

    Returns: True for the neurons that are kept, a row for each subset.

    Raises:
      ValueError: more neurons kept than there are.
    """
    _fits(kept, n)
    # the M neurons with the smallest of N random numbers: cheaper than a permutation
    numbers = uniform(key, (n_subsets, n))
    subsets = np.zeros((n_subsets, n), dtype=bool)
    np.put_along_axis(subsets, np.argpartition(numbers, kept - 1, axis=1)[:, :kept], True, axis=1)
    return subsets


@checked(values=_checks.labels, kept=_checks.positive_integer)
def neighbour_subsets(values: Float[ArrayLike, " N"], kept: int) -> Bool[np.ndarray, "N N"]:
    """Make the N subsets of M neurons that are neighbours in the cyclic order of a number each.

    Each neuron is in M of them, as often as in N `random_subsets` in the mean; but what is kept is
    alike.

    Args:
      values: a number for each neuron, such as one of its weights, shape (N,).
      kept: M, at most N.

    Returns: True for the neurons that are kept; row j keeps those of rank j, j+1, …, j+M-1, counted
      from 0 and modulo N.

    Raises:
      ValueError: more neurons kept than there are.
    """
    n = _fits(kept, len(values))
    rank = np.argsort(np.argsort(values))
    return (rank - np.arange(n)[:, None]) % n < kept


@checked(network=_network, law=_law)
def dropout_changes(
    network: Network, law: Teacher | Samples, subsets: Bool[ArrayLike, "subsets N"]
) -> Float[np.ndarray, " subsets"]:
    """Compute L_M - L_N where only some neurons are kept: f_M = (s/M) Σ_(i kept) a_i σ(w_i·x).

    Args:
      network: its N neurons.
      law: of (x, y).
      subsets: True for the neurons that are kept, at least one in each row.

    Raises:
      ValueError: subsets of another number of neurons, or empty ones; weights that do not fit x.
    """
    _same_dim(network, law)
    kept = _checks.subsets("subsets", subsets, len(network.a))
    return np.asarray(_changes(network, law, jnp.asarray(kept)))


@checked(
    network=_network,
    law=_law,
    kept=_checks.positive_integer,
    key=_checks.random_key,
    n_subsets=_checks.positive_integer,
)
def mean_absolute_change(
    network: Network, law: Teacher | Samples, kept: int, key, *, n_subsets: int
) -> float:
    """Measure E |L_M - L_N| over uniformly random subsets of M of the N neurons, by drawing some.

    What `change_law` predicts by the central limit theorem, up to the scatter of a mean of draws.

    Args:
      network: its N neurons.
      law: of (x, y).
      kept: M, at most N.
      key: a random key of JAX, for the subsets.
      n_subsets: how many.

    Raises:
      ValueError: more neurons kept than there are; weights that do not fit x.
    """
    subsets = random_subsets(key, len(network.a), kept, n_subsets)
    return float(abs(dropout_changes(network, law, subsets)).mean())


@checked(network=_network, law=_law, kept=_checks.positive_integer)
def change_law(network: Network, law: Teacher | Samples, kept: int) -> ChangeLaw:
    """Predict L_M - L_N over uniformly random subsets of M of the N neurons.

    With g_i = s a_i σ(w_i·x), r = f_N - y, Z = f_M - f_N and q = (1/M)(1 - M/N),

        L_M - L_N = 2⟨r, Z⟩ + ‖Z‖²,   E Z = 0,   Cov Z = q C,   C the covariance of the g_i,
        E (L_M - L_N) = q S²,   S² = Σ_i ‖g_i - f_N‖²/(N-1)
        Var 2⟨r, Z⟩ = 4 q V,   V = Σ_i (⟨r, g_i⟩ - mean)²/(N-1)

    which is exact, as it is for every sample without replacement. E |L_M - L_N| is that of a
    Gaussian Z with this covariance: the central limit theorem, for large M and N - M. It is the
    mean over 50,000 draws of it, always with the same random numbers, which leaves up to 0.6 %. The
    40 largest eigenvalues of C are followed one by one; the others enter ‖Z‖² by their sum. Derived
    here.

    Args:
      network: its N neurons, at least two.
      law: of (x, y).
      kept: M, at most N.

    Raises:
      ValueError: more neurons kept than there are; a single neuron; weights that do not fit x.
    """
    _same_dim(network, law)
    n = _fits(kept, len(network.a))
    if n < 2:
        raise ValueError("network: expected at least two neurons, got one")
    g, h, _ = map(np.asarray, _moments(law, network.w))
    p = network.scale * np.asarray(network.a)
    gram = p[:, None] * g * p
    slopes = gram.mean(axis=1) - p * h  # ⟨r, g_i⟩
    slopes = (slopes - slopes.mean()) / np.sqrt(n - 1)
    centred = gram - gram.mean(axis=0) - gram.mean(axis=1)[:, None] + gram.mean()
    q = (1 / kept) * (1 - kept / n)
    first = max(n - _LARGEST, 0)
    sizes, modes = scipy.linalg.eigh(centred / (n - 1), subset_by_index=(first, n - 1))
    along = slopes @ modes
    z = np.random.default_rng(0).standard_normal((50_000, len(sizes) + 1))
    rest = np.sqrt(max(slopes @ slopes - along @ along, 0.0))
    linear = 2 * np.sqrt(q) * (z @ np.append(along, rest))
    square = q * (z[:, :-1] ** 2 @ sizes + np.trace(centred) / (n - 1) - sizes.sum())
    return ChangeLaw(
        mean=float(q * np.trace(centred) / (n - 1)),
        sd_linear=float(2 * np.sqrt(q * slopes @ slopes)),
        mean_absolute=float(abs(linear + square).mean()),
    )


@checked(networks=_networks, others=_networks, v=_checks.inputs)
def overlap_distance(
    networks: Sequence[Network], others: Sequence[Network], v: Float[ArrayLike, "k D"]
) -> float:
    """Compute the mean distance of transport between the laws of overlaps w_i·v_k/|v_k|.

        W_1 = ∫ |F(z) - F'(z)| dz,   F(z) the share of neurons of overlap z or less

    between each network and each of the others, for each direction; the mean is over all of these.
    For one direction and pair it is the least mean distance by which overlaps have to be moved to
    turn those of one network into those of the other.

    Args:
      networks: one or more, of any numbers of neurons.
      others: one or more.
      v: directions, shape (k, D); their lengths do not count.

    Raises:
      ValueError: no networks; weights of another number of inputs; a direction that is 0.
    """
    for name, nets in (("networks", networks), ("others", others)):
        for i, network in enumerate(nets):
            _same_dim(network, Samples(v, v[:, 0]), f"{name}[{i}]")
    lengths = np.linalg.norm(v, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError(f"v: expected directions, got {int((lengths == 0).sum())} zero rows")
    ours, theirs = ([v / lengths @ n.w.T for n in nets] for nets in (networks, others))
    pairs = (zip(*laws, strict=True) for laws in itertools.product(ours, theirs))
    distances = [scipy.stats.wasserstein_distance(f, g) for pair in pairs for f, g in pair]
    return float(np.mean(distances))


@checked(network=_network, key=_checks.random_key)
def shuffled(network: Network, key) -> Network:
    """Put the neurons into a random order; the function stays the same.

    Args:
      network: its neurons.
      key: a random key of JAX.
    """
    order = jax.random.permutation(key, len(network.a))
    return Network(network.a[order], network.w[order], network.scale)


@checked(network=_network, n=_checks.positive_integer)
def with_silent(network: Network, n: int) -> Network:
    """Compute the same function by n neurons, of which n - N are silent: a_i = 0 and w_i = 0.

    The output weights of the others are multiplied by n/N, for the mean over all n. However large n
    is, it has only N neurons that count.

    Args:
      network: its N neurons.
      n: at least N.

    Raises:
      ValueError: n is smaller than N.
    """
    old, dim = network.w.shape
    if n < old:
        raise ValueError(f"n: expected at least {old}, the number of neurons, got {n}")
    a = jnp.zeros(n).at[:old].set(network.a * (n / old))
    return Network(a, jnp.zeros((n, dim)).at[:old].set(network.w), network.scale)


@checked(network=_network, other=_network)
def dropout_path(network: Network, other: Network) -> tuple[Network, ...]:
    """Return the six corners of the piecewise linear path of the proof, from one to the other.

    With the neurons of each in two halves A and B, a = (a_A, a_B) and w = (w_A, w_B):

        (a_A, a_B), (w_A, w_B)          the first network
        (2a_A, 0), (w_A, w_B)           B is dropped
        (2a_A, 0), (w_A, w'_B)          B, silent, moves
        (0, 2a'_B), (w_A, w'_B)         the output moves over
        (0, 2a'_B), (w'_A, w'_B)        A, silent, moves
        (a'_A, a'_B), (w'_A, w'_B)      the second network

    L is constant along the second and fourth piece, and convex along the others, where a alone
    moves: along the path it is at most its largest value at a corner.

    Args:
      network: the first, of an even number of neurons; A is the first half of them.
      other: the second, of the same shape and scale.

    Raises:
      ValueError: networks of different shapes or scales, an odd number of neurons.
    """
    _same_shape(network, other)
    n = len(network.a)
    if n % 2:
        raise ValueError(f"network: expected an even number of neurons, got {n}")
    first = jnp.arange(n) < n // 2
    mixed = jnp.where(first[:, None], network.w, other.w)
    left, right = jnp.where(first, 2 * network.a, 0.0), jnp.where(first, 0.0, 2 * other.a)
    corners = (
        (network.a, network.w),
        (left, network.w),
        (left, mixed),
        (right, mixed),
        (right, other.w),
        (other.a, other.w),
    )
    return tuple(Network(a, w, network.scale) for a, w in corners)


@checked(network=_network, other=_network, law=_law)
def path_excess(network: Network, other: Network, law: Teacher | Samples) -> float:
    """Compute by how much L on `dropout_path` exceeds the larger of its values at the two ends.

    L is nowhere above its largest value at a corner, so the two half networks decide.

    Args:
      network: the first end, of an even number of neurons.
      other: the second end, of the same shape and scale.
      law: of (x, y).

    Raises:
      ValueError: as `dropout_path`; weights that do not fit x.
    """
    _same_dim(network, law)
    corners = dropout_path(network, other)
    start, half, other_half, end = (float(_loss(corners[i], law)) for i in (0, 1, 3, 5))
    return max(start, half, other_half, end) - max(start, end)


@checked(law=_law, points=_checks.positive_integer)
def losses_along(
    corners: tuple[Network, ...], law: Teacher | Samples, points: int
) -> Float[np.ndarray, " losses"]:
    """Compute L along a piecewise linear path of networks.

    Args:
      corners: two or more networks of the same shape and scale.
      law: of (x, y).
      points: intervals of each piece, at whose ends L is computed.

    Returns: L, shape (pieces · points + 1,); corner j has the index j · points.

    Raises:
      ValueError: fewer than two corners, corners of different shapes, weights that do not fit x.
    """
    corners = [_network(f"corners[{i}]", corner) for i, corner in enumerate(corners)]
    if len(corners) < 2:
        raise ValueError(f"corners: expected at least two, got {len(corners)}")
    for corner in corners:
        _same_shape(corners[0], corner)
    _same_dim(corners[0], law, "corners[0]")
    weights = np.arange(points) / points
    pieces = [
        np.asarray(_losses_between(start, end, law, weights))
        for start, end in itertools.pairwise(corners)
    ]
    return np.concatenate([*pieces, [float(_loss(corners[-1], law))]])


@checked(network=_network, other=_network)
def aligned(network: Network, other: Network) -> Network:
    """Reorder the neurons of the other network such that they lie closest to those of the first.

    The permutation minimises Σ_i ‖θ_i - θ'_π(i)‖² (SciPy's linear sum assignment). The function
    that the network computes stays the same.

    Args:
      network: the first.
      other: the one to reorder, of the same shape and scale.

    Raises:
      ValueError: networks of different shapes or scales.
    """
    _same_shape(network, other)
    theta, moved = (np.column_stack([n.a, n.w]) for n in (network, other))
    _, order = scipy.optimize.linear_sum_assignment(-theta @ moved.T)
    return Network(other.a[order], other.w[order], other.scale)


def _fits(kept: int, n: int) -> int:
    if kept > n:
        raise ValueError(f"kept: expected at most {n}, the number of neurons, got {kept}")
    return n


def _same_shape(network: Network, other: Network) -> None:
    if network.w.shape != other.w.shape or network.scale != other.scale:
        raise ValueError(
            f"other: expected weights of shape {network.w.shape} and scale {network.scale:.3g}, "
            f"got {other.w.shape} and {other.scale:.3g}"
        )


def sigma(z):
    """erf(z/√2), of every entry."""
    return jax.scipy.special.erf(z / np.sqrt(2))


def _coefficients(network):
    return network.scale * network.a / len(network.a)


def _kernel(u, v):
    """E σ(u_i·x) σ(v_j·x), x ~ N(0, I)."""
    norms = [jnp.sqrt(1 + (z**2).sum(axis=1)) for z in (u, v)]
    return 2 / np.pi * jnp.arcsin(u @ v.T / (norms[0][:, None] * norms[1][None]))


@jax.jit
def _moments(law, w):
    if isinstance(law, Teacher):
        return Moments(
            _kernel(w, w), _kernel(w, law.v) @ law.b, law.b @ _kernel(law.v, law.v) @ law.b
        )
    s = sigma(law.x @ w.T)
    return Moments(s.T @ s / len(s), law.y @ s / len(s), (law.y**2).mean())


@jax.jit
def _loss(network, law):
    if isinstance(law, Samples):
        return ((law.y - sigma(law.x @ network.w.T) @ _coefficients(network)) ** 2).mean()
    p, (g, h, c) = _coefficients(network), _moments(law, network.w)
    return p @ g @ p - 2 * p @ h + c


def _step(network, gradient, step_size):
    size = step_size * len(network.a) / network.scale**2
    return network._replace(a=network.a - size * gradient[0], w=network.w - size * gradient[1])


@functools.partial(jax.jit, static_argnums=3)
def _flow(network, law, step_size, steps):
    half = lambda aw: _loss(network._replace(a=aw[0], w=aw[1]), law) / 2  # noqa: E731

    def one_step(network, _):
        return _step(network, jax.grad(half)((network.a, network.w)), step_size), None

    return jax.lax.scan(one_step, network, length=steps)[0]


@jax.jit
def _sgd(network, x, y, step_size):
    def one_step(network, sample):
        def half(aw):
            a, w = aw
            p = network.scale * a / len(a)
            return (sample[1] - p @ sigma(w @ sample[0])) ** 2 / 2

        return _step(network, jax.grad(half)((network.a, network.w)), step_size), None

    return jax.lax.scan(one_step, network, (x, y))[0]


@jax.jit
def _changes(network, law, kept):
    g, h, c = _moments(law, network.w)
    p = network.scale * network.a[None] * kept / kept.sum(axis=1, keepdims=True)
    return ((p @ g) * p).sum(axis=1) - 2 * p @ h + c - _loss(network, law)


@jax.jit
def _losses_between(start, end, law, weights):
    def at(t):
        return _loss(jax.tree.map(lambda u, v: u + t * (v - u), start, end), law)

    return jax.lax.map(at, weights)


def _recorded(advance, network, steps, every, step_size) -> tuple[Network, ...]:
    if steps % every:
        raise ValueError(f"record_every: expected a divisor of the {steps} steps, got {every}")
    networks = [network]
    with progress_bar(steps, unit=" steps", delay=2) as bar:
        for done in range(0, steps, every):
            networks.append(advance(networks[-1], done))
            if not all(np.isfinite(leaf).all() for leaf in networks[-1]):
                raise ValueError(
                    f"step_size: expected one at which training is stable, got {step_size:.3g}: "
                    f"weights overflowed between step {done} and {done + every}"
                )
            bar.update(every)
    return tuple(n._replace(scale=float(network.scale)) for n in networks)
