"""Arrays of any scale: powers of two are taken out first, which is exact.

Squares of 1e200 and of 1e-200 are no numbers any more, those of numbers about 1 are.
"""

import math

import numpy as np


def polar(x) -> tuple[np.ndarray, np.ndarray]:
    """The norms of the rows and the rows divided by them, at any scale; a row 0 stays 0."""
    x = np.asarray(x)
    _, exponents = np.frexp(np.abs(x).max(axis=1))
    scaled = np.ldexp(x, -exponents[:, None])
    norms = np.linalg.norm(scaled, axis=1)
    return np.ldexp(norms, exponents), scaled / np.where(norms > 0, norms, 1)[:, None]


def without_scale(array) -> tuple[np.ndarray, int]:
    """The array over 2^e, its largest entry then in [1/2, 1), and e; exact, and (0, 0) for 0."""
    array = np.asarray(array)
    exponent = exponent_of(array)
    return over_power_of_two(array, exponent), exponent


def exponent_of(array: np.ndarray) -> int:
    """The e of `without_scale`."""
    return math.frexp(max(array.max(), -array.min()))[1]


def over_power_of_two(array: np.ndarray, exponent: int, **options) -> np.ndarray:
    """The array over 2^e, with the options of a ufunc."""
    if abs(exponent) < 1000:  # the product with a power of two is exact, and much faster
        return np.multiply(array, math.ldexp(1.0, -exponent), **options)
    return np.ldexp(array, -exponent, **options)
