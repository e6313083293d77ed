"""Gaussian draws with few compilations.

XLA needs a quarter of a second to compile JAX's generator for each new size, which would be most of
the time of a sweep over sizes. So numbers are drawn in blocks of 2^m, then cut to shape.
"""

import functools
import math

import jax
import jax.numpy as jnp

_SMALLEST_BLOCK = 2**12


def normals(keys, shapes, scales) -> tuple[jax.Array, ...]:
    """Draw an array of independent N(0, scale²) numbers for each key, shape and scale, float64."""
    sizes = [max(_SMALLEST_BLOCK, 1 << (math.prod(shape) - 1).bit_length()) for shape in shapes]
    blocks = [_draw(key, size) for key, size in zip(keys, sizes, strict=True)]
    return _cut(blocks, tuple(scales), tuple(shapes))


@functools.partial(jax.jit, static_argnums=1)
def _draw(key, size):
    return jax.random.normal(key, (size,), dtype=jnp.float64)


@functools.partial(jax.jit, static_argnums=2)
def _cut(blocks, scales, shapes):
    return tuple(
        scale * block[: math.prod(shape)].reshape(shape)
        for block, scale, shape in zip(blocks, scales, shapes, strict=True)
    )
