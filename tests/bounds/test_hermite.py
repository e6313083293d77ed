import math

import mpmath
import pytest
import scipy.integrate
from numpy.polynomial.hermite_e import hermeval

from ntk_utils import hermite_coefficient


@pytest.mark.parametrize("r", range(17))
def test_hermite_coefficient_is_the_integral_that_defines_it(r):
    def integrand(g):
        density = math.exp(-(g**2) / 2) / math.sqrt(2 * math.pi)
        return g * hermeval(g, [0] * r + [1]) / math.sqrt(math.factorial(r)) * density

    integral, _ = scipy.integrate.quad(integrand, 0, 40, epsabs=1e-13, limit=400)
    assert hermite_coefficient(r) == pytest.approx(integral, rel=1e-9, abs=1e-12)


def test_squares_of_hermite_coefficients_sum_to_the_second_moment_of_the_relu():
    total = sum(hermite_coefficient(r) ** 2 for r in range(2001))
    # the terms fall like r^{-5/2}: what is left beyond r = 2000 was measured once
    assert 0 < 0.5 - total < 3e-6


@pytest.mark.parametrize("c", [-0.9, -0.3, 0.5, 0.9])
def test_hermite_coefficients_are_those_of_the_arc_cosine_kernel(c):
    # 2 E[σ(u) σ(v)] of two standard Gaussians with correlation c, once as a power series
    series = sum(2 * hermite_coefficient(r) ** 2 * c**r for r in range(400))
    angle = math.acos(c)
    closed_form = (math.sin(angle) + (math.pi - angle) * c) / math.pi
    assert series == pytest.approx(closed_form, rel=1e-12)


def test_signs_of_even_hermite_coefficients_alternate_and_odd_ones_vanish():
    even = [hermite_coefficient(r) for r in range(2, 30, 2)]
    assert [math.copysign(1, mu) for mu in even] == [(-1.0) ** m for m in range(14)]
    assert [hermite_coefficient(r) for r in range(3, 30, 2)] == [0.0] * 14


def test_hermite_coefficients_of_high_order_neither_overflow_nor_vanish():
    # from the recursion μ_{r+2}/μ_r = -(r-1)/√((r+1)(r+2)), which needs no factorial
    ratio = hermite_coefficient(5002) / hermite_coefficient(5000)
    assert ratio == pytest.approx(-4999 / math.sqrt(5001 * 5002), rel=1e-9)


@pytest.mark.parametrize(
    "r", [2, 10, 150, 1998, 2000, 2002, 2004, 5000, 10**6, *(10**e for e in (15, 16, 17, 60, 250))]
)
def test_hermite_coefficients_of_any_order_agree_with_40_digits(r):
    with mpmath.workdps(40 + 2 * len(str(r))):
        # ((r-3)!!)² / r! with (2m-1)!! = 2^m Γ(m + 1/2) / √π, and m = (r-2)/2
        m = (r - 2) // 2
        log_size = 2 * (m * mpmath.log(2) + mpmath.loggamma(m + mpmath.mpf(1) / 2))
        log_size -= mpmath.log(mpmath.pi) + mpmath.loggamma(r + 1)
        exact = mpmath.exp(log_size / 2) / mpmath.sqrt(2 * mpmath.pi) * (-1) ** m
    assert hermite_coefficient(r) == pytest.approx(float(exact), rel=4e-15, abs=0)


def test_hermite_coefficients_of_orders_that_no_double_holds_are_0_or_tiny():
    assert hermite_coefficient(2**901) == hermite_coefficient(10**400) == 0
    assert 0 < abs(hermite_coefficient(2**800)) < 1e-290
    assert hermite_coefficient(10**400 + 1) == 0
