"""Networks of three layers as means over the neurons of the layer before: SGD, and dropping.

A network of N and M neurons in its two hidden layers, without biases, is

    f(x) = (1/M) Σ_k a_k σ((1/N) Σ_j w_jk σ(u_j·x)),   σ(z) = erf(z/√2).

The loss is the mean of (y - f(x))² over given samples. The unit of time is that in which each
weight moves by its own size, whatever N and M are: the gradient of half the loss is multiplied by N
for u, by N M for w and by M for a.

Source: Shevchenko, Mondelli (ICML 2020, arXiv:1912.10095) have theorems for networks of several
  layers. We know of these from the abstract alone; the network and the unit of time are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils._random import normal, uniform
from ntk_utils.mean_field.dropout import sigma


class Network(NamedTuple):
    """The weights of f(x) = (1/M) Σ_k a_k σ((1/N) Σ_j w_jk σ(u_j·x))."""

    u: Float[ArrayLike, "D N"]
    """incoming weights, u_j in column j"""
    w: Float[ArrayLike, "N M"]
    """w_jk, from neuron j of the first hidden layer to k of the second"""
    a: Float[ArrayLike, " M"]
    """output weights a_k"""


def _network(name: str, value) -> Network:
    """A network, its weights in float64 and of shapes that fit each other."""
    u, w, a = _checks.instance_of(Network)(name, value)
    u, w = _checks.inputs(f"{name}.u", u), _checks.inputs(f"{name}.w", w)
    a = jnp.asarray(_checks.labels(f"{name}.a", a))
    if w.shape != (u.shape[1], len(a)):
        raise ValueError(f"{name}.w: expected shape {(u.shape[1], len(a))}, got {w.shape}")
    return Network(u, w, a)


def _three_keys(name: str, value) -> list[jax.Array]:
    keys = _checks.iterable(name, value)
    keys = [_checks.random_key(f"{name}[{i}]", k) for i, k in enumerate(keys)]
    if len(keys) != 3:
        raise ValueError(f"{name}: expected three random keys, got {len(keys)}")
    return keys


@checked(keys=_three_keys, n=_checks.positive_integer, dim=_checks.positive_integer)
def draw_network(keys: Sequence, n: int, dim: int) -> Network:
    """Draw all weights independently: u_j ~ N(0, I_D/D), w_jk ~ N(0, 1), a_k uniform on [-1, 1].

    Args:
      keys: three random keys of JAX, for u, w and a.
      n: N = M, the number of neurons of both hidden layers.
      dim: D.

    Raises:
      ValueError: not three keys.
    """
    u, w = normal(keys[0], (dim, n)) / np.sqrt(dim), normal(keys[1], (n, n))
    return Network(*map(_checks.on_device, (u, w, 2 * uniform(keys[2], (n,)) - 1)))


@checked(network=_network, x=_checks.inputs)
def outputs(network: Network, x: Float[ArrayLike, "n D"]) -> Float[Array, " n"]:
    """Compute f.

    Args:
      network: its weights.
      x: inputs, shape (n, D).

    Raises:
      ValueError: weights that do not fit x.
    """
    _same_dim(network, x)
    return _outputs(network, x)


@checked(network=_network, x=_checks.inputs, y=_checks.labels)
def loss(network: Network, x: Float[ArrayLike, "n D"], y: Float[ArrayLike, " n"]) -> float:
    """Compute the mean of (y - f(x))² over samples.

    Args:
      network: its weights.
      x: samples, shape (n, D).
      y: their labels, shape (n,).

    Raises:
      ValueError: weights that do not fit x.
    """
    _same_dim(network, x)
    return float(_loss(network, x, y))


@checked(network=_network, x=_checks.inputs, y=_checks.labels, step_size=_checks.positive_number)
def sgd(
    network: Network,
    x: Float[ArrayLike, "steps D"],
    y: Float[ArrayLike, " steps"],
    *,
    step_size: float,
) -> Network:
    """Train by one step for each sample, in their order.

        u ← u - α N ∂ℓ/∂u,   w ← w - α N M ∂ℓ/∂w,   a ← a - α M ∂ℓ/∂a,   ℓ = ½ (y_k - f(x_k))²

    Args:
      network: to start from.
      x: samples, shape (steps, D).
      y: labels, shape (steps,).
      step_size: α.

    Raises:
      ValueError: a step size at which the weights overflow; weights that do not fit x.
    """
    _same_dim(network, x)
    end = _sgd(network, x, y, step_size)
    if not all(np.isfinite(weights).all() for weights in end):
        raise ValueError(
            f"step_size: expected one at which training is stable, got {step_size:.3g}: weights "
            "overflowed"
        )
    return end


@checked(network=_network, x=_checks.inputs, y=_checks.labels)
def dropout_changes(
    network: Network,
    x: Float[ArrayLike, "n D"],
    y: Float[ArrayLike, " n"],
    subsets: Bool[ArrayLike, "subsets N"],
    other_subsets: Bool[ArrayLike, "subsets M"],
) -> Float[np.ndarray, " subsets"]:
    """Compute by how much the loss changes where only some neurons of both hidden layers are kept.

    The means of f are then over those that are kept.

    Args:
      network: its weights.
      x: samples, shape (n, D).
      y: their labels, shape (n,).
      subsets: True for what is kept of the first hidden layer, at least one in each row.
      other_subsets: the same for the second, as many rows.

    Raises:
      ValueError: subsets of another number of neurons, empty ones, or not as many of both layers;
        weights that do not fit x.
    """
    _same_dim(network, x)
    first = _checks.subsets("subsets", subsets, len(network.w))
    second = _checks.subsets("other_subsets", other_subsets, len(network.a))
    if len(first) != len(second):
        raise ValueError(f"other_subsets: expected {len(first)} rows, got {len(second)}")
    return np.asarray(_changes(network, x, y, first, second))


def _same_dim(network, x):
    if len(network.u) != x.shape[1]:
        raise ValueError(
            f"network.u: expected {x.shape[1]} rows, one for each entry of x, got shape "
            f"{network.u.shape}"
        )


@jax.jit
def _outputs(network, x):
    u, w, a = network
    return sigma(sigma(x @ u) @ w / len(w)) @ a / len(a)


@jax.jit
def _loss(network, x, y):
    return ((y - _outputs(network, x)) ** 2).mean()


@jax.jit
def _sgd(network, x, y, step_size):
    n, m = network.w.shape
    factors = Network(n, n * m, m)

    def one_step(network, sample):
        x, y = sample
        gradient = jax.grad(lambda network: (y - _outputs(network, x)) ** 2 / 2)(network)
        step = lambda p, factor, g: p - step_size * factor * g  # noqa: E731
        return jax.tree.map(step, network, factors, gradient), None

    return jax.lax.scan(one_step, network, (x, y))[0]


@jax.jit
def _changes(network, x, y, subsets, other_subsets):
    _, w, a = network
    first = sigma(x @ network.u)  # the same for all subsets

    def dropped(kept):
        left, right = kept
        second = sigma((first * left[None]) @ w / left.sum())
        return ((y - second @ (a * right) / right.sum()) ** 2).mean()

    return jax.lax.map(dropped, (subsets, other_subsets)) - _loss(network, x, y)
