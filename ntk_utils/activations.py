"""Activations σ: the ReLU, on which everything rests, and smooth ones, for theorems on training."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ntk_utils import _checks
from ntk_utils._random import block_size

Activation = Callable[[Array], Array]
"""An elementwise function that JAX differentiates, such as `jax.numpy.tanh`; the same object each
time, since a new one is compiled anew."""


def relu(u: Float[ArrayLike, ...]) -> Float[Array, ...]:
    """max(u, 0), with the slope 0 at 0; the activation of every function that is given none."""
    return jax.nn.relu(u)


@dataclass(frozen=True)
class SmoothedLeakyReLU:
    """The leaky ReLU max(γu, u), smoothed: for the theorems that ask for a smooth activation.

        σ(u) = γ u + (1-γ) (u Φ(u/s) + s φ(u/s)) - (1-γ)²/(2πβ),   s = (1-γ)/(β √(2π)),

    Φ and φ the distribution function and the density of N(0, 1). It has σ(0) = 0, |σ(u)| <= |u|,
    γ < σ'(u) = γ + (1-γ) Φ(u/s) < 1 and |σ''| <= β, and tends to the leaky ReLU as β → ∞.

    Source: the example of Nguyen and Mondelli, arXiv:2002.07867, a convolution with a Gaussian,
      integrated here.

    Args:
      gamma: γ, the slope of the negative side, 0 < γ < 1.
      beta: β > 0, the bound on the second derivative.

    Raises:
      ValueError, TypeError: γ or β out of range, or no numbers.
    """

    gamma: SupportsFloat = 0.5
    beta: SupportsFloat = 1.0

    def __post_init__(self):
        for name in ("gamma", "beta"):
            number = _checks.positive_number(name, getattr(self, name))
            object.__setattr__(self, name, number)
        if self.gamma >= 1:
            raise ValueError(f"gamma: expected a number between 0 and 1, got {self.gamma}")

    def __call__(self, u: Float[ArrayLike, ...]) -> Float[Array, ...]:
        """σ of every entry."""
        rest = 1 - self.gamma
        s = rest / (self.beta * math.sqrt(2 * math.pi))
        smoothed = u * jax.scipy.stats.norm.cdf(u / s) + s * jax.scipy.stats.norm.pdf(u / s)
        return self.gamma * u + rest * (smoothed - rest / (2 * math.pi * self.beta))


def is_activation(name: str, value) -> Activation:
    """An elementwise function of JAX; JAX's own ReLU is `relu`, which can be copied and pickled."""
    if value is jax.nn.relu:
        return relu
    wanted = f"{name}: expected an elementwise function of JAX, such as jax.numpy.tanh"
    try:
        objection = _objection(value)
    except Exception as error:  # not hashable, or the function may raise any
        raise TypeError(f"{wanted}, got {value!r}: {type(error).__name__}: {error}") from error
    if objection:
        raise ValueError(f"{wanted}, got {value!r}, which {objection}")
    return value


@functools.lru_cache(maxsize=64)
def _objection(function) -> str:
    """What is wrong with an activation: shape and type of its values, or what they depend on."""
    point = jnp.linspace(-1.3, 1.7, 6).reshape(2, 3)
    returned = function(point)
    if (getattr(returned, "shape", None), getattr(returned, "dtype", None)) != (
        point.shape,
        point.dtype,
    ):
        return f"returns {jax.typeof(returned)} for {jax.typeof(point)}"
    slopes = jax.jacfwd(function)(point)
    # under jit, vmap or grad an activation may depend on what has no value yet
    if not isinstance(slopes, jax.core.Tracer):
        slopes = np.array(slopes).reshape(6, 6)
        np.fill_diagonal(slopes, 0)
        if slopes.any():
            return "mixes entries"
    return ""


def values(activation, g, overwrite_g=False):
    """σ(g), of an array of JAX or of NumPy, which is written over where it may be."""
    if not isinstance(g, np.ndarray):
        return activation(g)
    if activation is relu:
        return np.maximum(g, 0, out=g if overwrite_g else None)
    return _in_blocks(_values, activation, g)


def slopes(activation, g):
    """σ'(g), likewise; those of the ReLU are True and False."""
    if activation is relu:
        return g > 0
    if not isinstance(g, np.ndarray):
        return _slopes(activation, g)
    return _in_blocks(_slopes, activation, g)


def _in_blocks(function, activation, g):
    """An elementwise function of an array of NumPy, which XLA would compile for each new shape."""
    filled = np.zeros(block_size(g.size), g.dtype)
    filled[: g.size] = g.ravel()
    return np.asarray(function(activation, filled))[: g.size].reshape(g.shape)


@functools.partial(jax.jit, static_argnums=0)
def _values(activation, g):
    return activation(g)


@functools.partial(jax.jit, static_argnums=0)
def _slopes(activation, g):
    return jax.jvp(activation, (g,), (jnp.ones_like(g),))[1]
