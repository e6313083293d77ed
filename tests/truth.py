"""What certificates and kernels are held against: integers, and numbers of 60 digits."""

import operator

import mpmath
import numpy as np

DIGITS = 60
NEGLIGIBLE = mpmath.mpf(10) ** -25
"""Of a trace: what 60 digits leave of λ_min = 0, because an angle is a root of a versine."""


# --- integers -------------------------------------------------------------------------------------


def exact_ntk(params, x):
    """K̄ of integer weights and samples, as a sum of Hadamard products without any rounding."""
    *hidden, last = map(_integers, params)
    features = [_integers(x)]
    for w in hidden:
        g = features[-1] @ w
        features.append(g * (g > 0))
    backward, k = np.ones((len(x), 1), dtype=object), 0
    for w, f in zip([last, *reversed(hidden)], reversed(features), strict=True):
        k = k + (f @ f.T) * (backward @ backward.T)
        backward = (f > 0) * (backward @ w.T)
    return k


def _integers(a):
    a = np.asarray(a)
    return a if a.dtype == object else a.astype(int).astype(object)


def exact_ntk_of_doubles(params, x):
    """K̄ of any weights and samples as a matrix of integers, and the integer that divides it."""
    arrays = [np.asarray(a, dtype=np.float64) for a in (x, *params)]
    ratios = [[float(v).as_integer_ratio() for v in a.flat] for a in arrays]
    one = max(bottom for ratio in ratios for _, bottom in ratio)  # a power of two
    x, *params = (
        np.array([top * (one // bottom) for top, bottom in ratio], dtype=object).reshape(a.shape)
        for a, ratio in zip(arrays, ratios, strict=True)
    )
    return exact_ntk(params, x), one ** (2 * len(params))


def is_positive(k, *, definite):
    """Whether a matrix of integers is positive definite, or semidefinite, by elimination."""
    last = 1
    while len(k):
        pivot, below = k[0, 0], k[1:, 0]
        if pivot < 0 or (pivot == 0 and (definite or below.any())):
            return False
        if pivot == 0:
            k = k[1:, 1:]
            continue
        # times the pivot, so that no fraction arises; by the last one all entries can be divided
        k, last = (pivot * k[1:, 1:] - np.outer(below, below)) // last, pivot
    return True


def is_at_most_lambda_min(number, k, divisor=1):
    """Whether a float is at most λ_min of a matrix of integers over an integer."""
    return is_positive(_shifted(k, number, divisor), definite=False)


def is_at_least_lambda_min(number, k, divisor=1):
    """Whether a float is at least that."""
    return not is_positive(_shifted(k, number, divisor), definite=True)


def _shifted(k, number, divisor):
    """k minus divisor times a float times I, times the denominator of the float."""
    numerator, denominator = float(number).as_integer_ratio()
    return denominator * k - numerator * divisor * np.eye(len(k), dtype=int).astype(object)


# --- 60 digits ------------------------------------------------------------------------------------


def limiting(x, depth):
    """K^(L) and G^(L) by the recursion on cosines."""
    with mpmath.workdps(DIGITS):
        rows = [[mpmath.mpf(float(entry)) for entry in row] for row in np.asarray(x)]
        norms = [mpmath.sqrt(mpmath.fdot(row, row)) for row in rows]
        k, g = mpmath.matrix(len(rows)), mpmath.matrix(len(rows))
        for i, a in enumerate(rows):
            for j, b in enumerate(rows[: i + 1]):
                scale = norms[i] * norms[j]
                cosine = mpmath.fdot(a, b) / scale if scale and i != j else mpmath.mpf(1)
                of_k, of_g = _kappa(cosine, depth)
                k[i, j] = k[j, i] = scale * of_k
                g[i, j] = g[j, i] = scale * of_g
        return k, g


def _kappa(cosine, depth):
    kappa = g = max(min(cosine, mpmath.mpf(1)), mpmath.mpf(-1))
    for _ in range(depth - 1):
        angle = mpmath.acos(g)
        g = (mpmath.sin(angle) + (mpmath.pi - angle) * g) / mpmath.pi
        g = min(g, mpmath.mpf(1))
        kappa = kappa * (1 - angle / mpmath.pi) + g
    return kappa, g


def lambda_min(k):
    """The smallest eigenvalue of a matrix of mpmath."""
    with mpmath.workdps(DIGITS):
        size = max(abs(entry) for entry in k) or mpmath.mpf(1)
        return min(mpmath.eigsy(k / size, eigvals_only=True)) * size


def trace(k):
    return mpmath.fsum(k[i, i] for i in range(k.rows))


def spectral_norm(w):
    """The largest singular value."""
    with mpmath.workdps(DIGITS):
        return max(mpmath.svd_r(mpmath.matrix(np.asarray(w).tolist()), compute_uv=False))


def hard_samples(seed):
    """Samples of many sizes, two of them (nearly) parallel or opposite, or almost orthogonal."""
    rng = np.random.default_rng(seed)
    n, d = rng.integers(2, 6), rng.integers(2, 5)
    if seed % 6 == 0:
        d = n
    x = np.eye(n, d) + rng.normal(size=(n, d)) * (0.1 if seed % 6 == 0 else 1)
    angle = 10.0 ** -rng.integers(5, 13)
    aside = angle * np.linalg.norm(x[0]) * rng.normal(size=d)
    last = [x[-1], x[0] + aside, x[0], 3 * x[0], -x[0], -x[0] - aside]
    x[-1] = last[seed % 6]
    sizes = [1, 1e-150, 1e150, 10.0 ** rng.uniform(-140, 140, size=(n, 1))]
    return x * sizes[seed % 4]


# --- power series, in fixed point -----------------------------------------------------------------

_BITS = 300


def power_series(depth, n_terms):
    """The coefficients b_{L,p} of the limiting kernel, rounded to float64 once."""
    with mpmath.workprec(_BITS):
        g = kappa = [0, 1 << _BITS, *[0] * (n_terms - 2)]
        for _ in range(depth - 1):
            slope = [p * coefficient for p, coefficient in enumerate(g)][1:]
            angle = mpmath.acos(mpmath.mpf(g[0]) / 2**_BITS)
            at_0 = (mpmath.sin(angle) + (mpmath.pi - angle) * mpmath.cos(angle)) / mpmath.pi
            root = _divided(_inverse_root(_product(g, g)), mpmath.pi)
            derivative = _integral(_product(slope, root), 1 - angle / mpmath.pi)
            g = _integral(_product(slope, derivative), at_0)
            kappa = list(map(operator.add, _product(kappa, derivative), g))
        return np.array([float(mpmath.mpf(coefficient) / 2**_BITS) for coefficient in kappa])


def _fixed(number):
    return int(mpmath.nint(number * 2**_BITS))


def _divided(a, number):
    return [(coefficient << _BITS) // _fixed(number) for coefficient in a]


def _product(a, b):
    n = min(len(a), len(b))
    return [sum(map(operator.mul, a[: p + 1], b[p::-1])) >> _BITS for p in range(n)]


def _integral(a, at_0):
    return [_fixed(at_0), *(coefficient // p for p, coefficient in enumerate(a, start=1))]


def _inverse_root(a):
    """(1 - a)^{-1/2}, from 2 (1-a) y' = a' y."""
    y = [_fixed(1 / mpmath.sqrt(1 - mpmath.mpf(a[0]) / 2**_BITS))]
    slope = [p * coefficient for p, coefficient in enumerate(a)]
    for n in range(1, len(a)):
        back = y[n - 1 :: -1]
        of_a, of_slope = (sum(map(operator.mul, b[1:], back)) for b in (a, slope))
        y.append((2 * n * of_a - of_slope) // (2 * n * ((1 << _BITS) - a[0])))
    return y
