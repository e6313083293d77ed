"""Gaussian draws with few compilations.

XLA needs a fifth of a second to compile JAX's generator for each new size, which would be most of
the time of a sweep over sizes. So numbers are drawn in blocks of a few sizes, and NumPy, which
compiles nothing, cuts them to shape.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from ntk_utils import _checks

_SMALLEST_BLOCK = 2**16  # drawn in a millisecond


def normals(keys, shapes, scales, widths) -> tuple[jax.Array, ...]:
    """Draw an array of independent N(0, scale²) numbers for each key, shape and scale, float64.

    Array l keeps its first widths[l] rows and widths[l+1] columns; the rest is 0.
    """
    arrays = []
    for key, shape, scale, kept in zip(
        keys, shapes, scales, itertools.pairwise(widths), strict=True
    ):
        block = _SMALLEST_BLOCK
        while block < math.prod(shape):
            block *= 4
        array = scale * _checks.concrete(_draw(key, block))[: math.prod(shape)].reshape(shape)
        if tuple(kept) != tuple(shape):
            row, column = np.ogrid[: shape[0], : shape[1]]
            xp = array.__array_namespace__()
            array = xp.where((row < kept[0]) & (column < kept[1]), array, 0.0)
        arrays.append(_checks.on_device(array))
    return tuple(arrays)


@functools.partial(jax.jit, static_argnums=1)
def _draw(key, size):
    return jax.random.normal(key, (size,), dtype=jnp.float64)
