"""Gaussian draws that compile once for many shapes.

XLA needs a quarter of a second to compile JAX's generator for each new size, which would be most of
the time of a sweep over sizes. So numbers are drawn in blocks of 2^m, and cut to shape.
"""

import functools
import math

import jax
import jax.numpy as jnp

_SMALLEST_BLOCK = 2**12


def standard_normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw independent N(0, 1) numbers, float64, of the given shape."""
    size = math.prod(shape)
    block = max(_SMALLEST_BLOCK, 1 << (size - 1).bit_length())
    return _cut(_draw(key, block), shape)


@functools.partial(jax.jit, static_argnums=1)
def _draw(key, block):
    return jax.random.normal(key, (block,), dtype=jnp.float64)


@functools.partial(jax.jit, static_argnums=1)
def _cut(numbers, shape):
    return numbers[: math.prod(shape)].reshape(shape)
