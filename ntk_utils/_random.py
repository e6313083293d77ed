"""Gaussian draws with few compilations.

XLA needs a quarter of a second to compile JAX's generator for each new size, which would be most of
the time of a sweep over sizes. So numbers are drawn in blocks of 2^m, then cut to shape.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp

_SMALLEST_BLOCK = 2**12


def normals(keys, shapes, scales, widths) -> tuple[jax.Array, ...]:
    """Draw an array of independent N(0, scale²) numbers for each key, shape and scale, float64.

    Array l keeps its first widths[l] rows and widths[l+1] columns; the rest is 0.
    """
    sizes = [max(_SMALLEST_BLOCK, 1 << (math.prod(shape) - 1).bit_length()) for shape in shapes]
    blocks = [_draw(key, size) for key, size in zip(keys, sizes, strict=True)]
    return _cut(blocks, tuple(scales), tuple(widths), tuple(shapes))


@functools.partial(jax.jit, static_argnums=1)
def _draw(key, size):
    return jax.random.normal(key, (size,), dtype=jnp.float64)


@functools.partial(jax.jit, static_argnums=3)
def _cut(blocks, scales, widths, shapes):
    arrays = []
    for block, scale, kept, shape in zip(
        blocks, scales, itertools.pairwise(widths), shapes, strict=True
    ):
        row, column = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
        is_kept = (row < kept[0]) & (column < kept[1])
        arrays.append(jnp.where(is_kept, scale * block[: math.prod(shape)].reshape(shape), 0.0))
    return tuple(arrays)
