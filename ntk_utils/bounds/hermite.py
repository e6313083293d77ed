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
    if r % 2:
        return 0.0
    if r == 0:
        return 1 / math.sqrt(2 * math.pi)
    # (r-3)!! = (r-2)! / (2^m m!) with m = (r-2)/2, in logarithms, which do not overflow
    m = (r - 2) // 2
    log_size = math.lgamma(r - 1) - m * math.log(2) - math.lgamma(m + 1) - math.lgamma(r + 1) / 2
    return (-1) ** m * math.exp(log_size) / math.sqrt(2 * math.pi)
