"""Hermite coefficients of the ReLU, in which the bounds on λ_min are written."""

import math

from ntk_utils import _checks
from ntk_utils._checks import checked


@checked(r=_checks.order)
def hermite_coefficient(r: int) -> float:
    """Return the r-th Hermite coefficient of the ReLU, μ_r(σ) = E_{g~N(0,1)}[σ(g) h_r(g)].

        μ_0 = 1/√(2π),  μ_1 = 1/2,  μ_r = 0 for odd r >= 3,
        μ_r = (1/√(2π)) (-1)^{(r-2)/2} (r-3)!! / √(r!) for even r >= 2, with (-1)!! = 1.

    h_r = He_r/√(r!) is the normalised probabilists' Hermite polynomial, and Σ_r μ_r² =
    E[σ(g)²] = 1/2. Theorems 3.2 and 4.1 of arXiv:2012.11654 call it μ_r(σ).

    Args:
      r: order, at least 0.
    """
    if r == 1:
        return 0.5
    if r == 0:
        return 1 / math.sqrt(2 * math.pi)
    if r % 2 or r > 2**900:  # it falls as r^{-5/4}: there it is below the smallest number
        return 0.0
    # (r-3)!! / √(r!) = √(C(2m, m) / 4^m) / √(r (r-1)) with m = (r-2)/2
    m = (r - 2) // 2
    if m < 1000:
        central = math.comb(2 * m, m) / 4**m
    else:  # the next term of the series is below rounding
        central = (1 - (1 - (1 + 5 / (8 * m)) / (16 * m)) / (8 * m)) / math.sqrt(math.pi * m)
    size = math.sqrt(central / (2 * math.pi)) / math.sqrt(r) / math.sqrt(r - 1)
    return -size if m % 2 else size
