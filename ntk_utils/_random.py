"""Draws with few compilations: the numbers that `jax.random` gives.

XLA needs a fifth of a second to compile JAX's generator for each new size, which would be most of
the time of a sweep over sizes. So numbers are drawn in blocks of a few sizes, and NumPy, which
compiles nothing, cuts them to shape.
"""

import functools
import math

import jax
import jax.numpy as jnp

from ntk_utils import _checks

_SMALLEST_BLOCK = 2**16  # drawn in a millisecond
_LARGE_BLOCK = 2**20  # above, the numbers that are drawn too many take longer than a compilation


def normals(keys, shapes, scales) -> tuple[jax.Array, ...]:
    """Draw an array of independent N(0, scale²) numbers for each key, shape and scale, float64."""
    drawn = zip(keys, shapes, scales, strict=True)
    return tuple(_checks.on_device(scale * normal(key, shape)) for key, shape, scale in drawn)


def normal(key, shape):
    """Draw an array of independent N(0, 1) numbers, float64; of NumPy, but for tracers."""
    return _cut(jax.random.normal, key, shape)


def uniform(key, shape):
    """Draw an array of numbers uniform on [0, 1), likewise."""
    return _cut(jax.random.uniform, key, shape)


def _cut(law, key, shape):
    size = math.prod(shape)
    # the first numbers are the same, whatever the block
    return _checks.concrete(_draw(law, key, block_size(size)))[:size].reshape(shape)


def block_size(size: int) -> int:
    """How many numbers to compute for so many: of a few sizes, each of which is compiled once."""
    if size > _LARGE_BLOCK:
        step = 2 ** (size.bit_length() - 4)  # an eighth at most for nothing
        return step * math.ceil(size / step)
    block = _SMALLEST_BLOCK
    while block < size:
        block *= 4
    return block


@functools.partial(jax.jit, static_argnums=(0, 2))
def _draw(law, key, size):
    return law(key, (size,), dtype=jnp.float64)
