import math

import jax
import numpy as np
import pytest
import truth

import ntk_utils
from ntk_utils import (
    diagonal_upper_bound,
    gaussian,
    hermite_coefficient,
    limiting_lower_bound,
    limiting_ntk,
    limiting_power_series,
    limiting_rank_upper_bound,
    nguyen21_limiting_lower,
    smallest_eigenvalue,
    uniform_sphere,
)
from ntk_utils.spectra import ROUNDINGS

DEPTHS = (1, 2, 3, 5)


def relu_dual(c):
    """2 E[σ(u) σ(v)] and 2 E[σ'(u) σ'(v)] for standard Gaussians of correlation c, also complex."""
    angle = np.arccos(c)
    return (np.sqrt(1 - c**2) + (np.pi - angle) * c) / np.pi, 1 - angle / np.pi


def kappa(c, depth):
    g = k = c
    for _ in range(depth - 1):
        g, derivative = relu_dual(g)
        k = k * derivative + g
    return k


def limiting_kernel(x, depth):
    """K^(L) by the recursion, for samples no two of which are parallel."""
    x = np.asarray(x)
    norms = np.linalg.norm(x, axis=1)
    scale = np.outer(norms, norms)
    cosines = x @ x.T / scale
    np.fill_diagonal(cosines, 1)
    return scale * kappa(cosines, depth)


# --- the series -----------------------------------------------------------------------------------


def test_without_a_hidden_layer_the_series_is_the_cosine_itself():
    np.testing.assert_array_equal(limiting_power_series(1, 5), [0, 1, 0, 0, 0])


def test_at_depth_two_the_coefficients_are_squared_hermite_coefficients():
    expected = [2 * (p + 1) * hermite_coefficient(p) ** 2 for p in range(300)]
    np.testing.assert_allclose(limiting_power_series(2, 300), expected, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("depth", [2, 3, 4, 7])
def test_coefficients_are_those_of_cauchys_integral(depth):
    # κ_L is analytic in the unit disc: its values on a circle give the coefficients by an FFT
    radius, n_points = 0.8, 256
    circle = radius * np.exp(2j * np.pi * np.arange(n_points) / n_points)
    expected = np.fft.fft(kappa(circle, depth)).real / n_points / radius ** np.arange(n_points)
    np.testing.assert_allclose(limiting_power_series(depth, 40), expected[:40], atol=1e-9)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("c", [-0.9, -0.2, 0.0, 0.6, 0.9])
def test_series_sums_to_the_kernel_of_neural_tangents(c, depth):
    x = np.array([[1.0, 0.0], [c, math.sqrt(1 - c**2)]])
    series = (limiting_power_series(depth, 400) * c ** np.arange(400)).sum()
    assert series == pytest.approx(float(limiting_ntk(x, depth=depth)[0, 1]), rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("depth", [2, 3, 5, 10])
def test_coefficients_are_not_negative_and_their_tail_falls_like_one_over_the_square_root(depth):
    b = limiting_power_series(depth, 4000)
    assert (b >= 0).all()
    tail = depth - np.cumsum(b)
    assert 0 < tail[-1] < 0.05 * depth
    assert tail[999] / tail[3999] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("n_terms", [1, 2, 3, 17])
def test_a_shorter_series_is_the_beginning_of_a_longer_one(depth, n_terms):
    short, long = limiting_power_series(depth, n_terms), limiting_power_series(depth, 60)
    assert short.shape == (n_terms,)
    np.testing.assert_allclose(short, long[:n_terms], rtol=1e-13)


# --- the certificate ------------------------------------------------------------------------------


def laws(seed, n, d):
    """Data that satisfy the hypotheses of Theorem 3.2, and data that do not."""
    key, key_radius = jax.random.split(jax.random.key(seed))
    x = gaussian(key, n, d)
    return {
        "sphere": uniform_sphere(key, n, d),
        "gaussian": x,
        "mean not 0": x + 1.0,
        "heavy-tailed radius": x * np.exp(gaussian(key_radius, n, 1)),
        "concentrated": 0.1 * x + 1.0,
    }


@pytest.mark.parametrize("depth", DEPTHS)
def test_certificate_lies_below_the_smallest_eigenvalue_on_a_hundred_draws(depth):
    for seed in range(5):
        for n, d in [(2, 1), (10, 30), (40, 40), (40, 12)]:
            for law, x in laws(seed, n, d).items():
                k = limiting_kernel(x, depth)
                rounding = 1e-13 * np.trace(k)
                for exact_orders in (0, 3):
                    lower = limiting_lower_bound(x, depth=depth, exact_orders=exact_orders)
                    assert 0 <= lower <= smallest_eigenvalue(k) + rounding, law
                assert smallest_eigenvalue(k) <= diagonal_upper_bound(k)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("depth", [2, 3, 5])
def test_certificate_is_close_to_the_truth_when_the_dimension_is_large(depth, seed):
    # ratios chosen after measuring them once: 0.79 and 0.94 at least
    x = uniform_sphere(jax.random.key(seed), 20, 1000)
    lambda_min = smallest_eigenvalue(limiting_ntk(x, depth=depth))
    assert 0.7 * lambda_min < limiting_lower_bound(x, depth=depth) < lambda_min
    assert 0.9 * lambda_min < limiting_lower_bound(x, depth=depth, exact_orders=2) < lambda_min


@pytest.mark.parametrize("depth", DEPTHS)
def test_certificate_is_exact_for_orthogonal_samples_of_equal_norm(depth):
    x = 3 * np.eye(6)
    exact = 9 * (depth - limiting_power_series(depth, 1)[0])
    assert limiting_lower_bound(x, depth=depth) == pytest.approx(exact, rel=1e-9)
    assert smallest_eigenvalue(limiting_ntk(x, depth=depth)) == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("c", [0.1, 0.7])
def test_certificate_is_exact_for_two_samples_at_an_acute_angle(depth, c):
    x = 2 * np.array([[1.0, 0.0], [c, math.sqrt(1 - c**2)]])
    exact = 4 * (depth - kappa(c, depth))
    assert limiting_lower_bound(x, depth=depth) == pytest.approx(exact, rel=1e-9)


def test_certificate_of_one_sample_is_depth_times_its_squared_norm(key):
    x = gaussian(key, 1, 4)
    expected = 3 * float((x**2).sum())
    assert limiting_lower_bound(x, depth=3) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_exact_orders_raise_the_certificate_step_by_step(seed):
    x = gaussian(jax.random.key(seed), 60, 30)
    bounds = [limiting_lower_bound(x, depth=3, exact_orders=p) for p in range(5)]
    # order 1 adds nothing, since N > d; order 2 doubled the bound in every draw that was looked at
    assert bounds[1] == bounds[0]
    assert bounds[2] > 1.5 * bounds[1]
    assert bounds == sorted(bounds)


def test_at_depth_one_the_first_exact_order_gives_the_gram_matrix_of_unit_samples(key):
    x = uniform_sphere(key, 8, 20)
    exact = smallest_eigenvalue(np.asarray(x @ x.T))
    assert limiting_lower_bound(x, depth=1, exact_orders=1) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_truncation_costs_little_and_never_the_validity(seed):
    x = uniform_sphere(jax.random.key(seed), 30, 12)
    bounds = [limiting_lower_bound(x, depth=3, n_terms=n) for n in (1, 5, 10, 20, 40, 80)]
    assert bounds[0] == 0
    assert bounds == sorted(bounds)
    assert bounds[-1] - bounds[-2] < 0.02 * bounds[-1]
    assert bounds[-1] < smallest_eigenvalue(limiting_kernel(x, 3))


@pytest.mark.parametrize("factor", [1e-3, 7.0])
def test_both_bounds_are_homogeneous_of_degree_two(factor, key):
    x = gaussian(key, 20, 30)
    for bound in (
        lambda x: limiting_lower_bound(x, depth=3),
        lambda x: nguyen21_limiting_lower(x, r=4),
    ):
        assert bound(factor * x) == pytest.approx(factor**2 * bound(x), rel=1e-10)


# --- one Hermite coefficient ----------------------------------------------------------------------


@pytest.mark.parametrize("r", [2, 4, 10])
def test_single_order_is_twice_the_squared_coefficient_for_orthogonal_samples(r):
    expected = 2 * hermite_coefficient(r) ** 2 * 9
    assert nguyen21_limiting_lower(3 * np.eye(6), r=r) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("r", [2, 4])
def test_single_order_agrees_with_the_formula_written_out_for_two_samples(r):
    x = np.array([[2.0, 0.0], [-3.0, 4.0]])
    expected = 2 * hermite_coefficient(r) ** 2 * 4 * (1 - 0.6**r)
    assert nguyen21_limiting_lower(x, r=r) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_single_order_lies_below_certificate_and_eigenvalue_on_a_hundred_draws(depth):
    for seed in range(10):
        for n, d in [(10, 30), (40, 12)]:
            for x in laws(seed, n, d).values():
                certificate = limiting_lower_bound(x, depth=depth)
                lambda_min = smallest_eigenvalue(limiting_kernel(x, depth))
                for r in (2, 6, 12):
                    assert 0 <= nguyen21_limiting_lower(x, r=r) <= certificate * (1 + 1e-12)
                assert certificate <= lambda_min


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_single_order_is_positive_from_an_order_on_that_grows_with_the_sample(seed):
    x = uniform_sphere(jax.random.key(seed), 400, 24)
    first = [
        min(r for r in range(2, 40, 2) if nguyen21_limiting_lower(x[:n], r=r) > 0)
        for n in (4, 40, 400)
    ]
    assert first[0] == 2
    assert first == sorted(set(first))


# --- hypotheses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_repeated_sample_takes_the_eigenvalue_and_both_bounds_to_zero(seed):
    x = gaussian(jax.random.key(seed), 12, 40)
    repeated = x.at[7].set(x[3])
    k = limiting_ntk(repeated, depth=3)
    rounding = 1e-7 * float(np.trace(k))  # arccos near 1 costs half of the digits
    assert limiting_lower_bound(x, depth=3) > 10 * rounding
    assert abs(smallest_eigenvalue(k)) < rounding
    assert nguyen21_limiting_lower(repeated, r=2) == pytest.approx(0, abs=rounding)
    for exact_orders in (0, 5):
        bound = limiting_lower_bound(repeated, depth=3, exact_orders=exact_orders)
        assert 0 <= bound < 1e-10


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_opposite_samples_are_no_repetition_but_the_bounds_cannot_tell(seed):
    x = gaussian(jax.random.key(seed), 12, 40)
    opposite = x.at[7].set(-x[3])
    assert smallest_eigenvalue(limiting_ntk(opposite, depth=3)) > 1
    assert limiting_lower_bound(opposite, depth=3) < 1e-10


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_single_order_fails_for_the_linear_model_which_it_excludes(seed):
    x = uniform_sphere(jax.random.key(seed), 30, 12)
    assert nguyen21_limiting_lower(x, r=10) > 1e-3
    assert smallest_eigenvalue(np.asarray(x @ x.T)) < 1e-12


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_samples_concentrated_around_their_mean_lose_the_growth_with_the_dimension(seed):
    # E‖x - E x‖² is 1 instead of a share of d: λ_min falls to the order of √d
    ratios = {}
    for d in (20, 1280):
        z = gaussian(jax.random.key(seed), 20, d)
        laws_of_d = {"centred": z, "concentrated": 1 + z / math.sqrt(d)}
        for law, x in laws_of_d.items():
            ratios[law, d] = smallest_eigenvalue(limiting_kernel(x, 3)) / d
            assert limiting_lower_bound(x, depth=3) <= d * ratios[law, d]
    assert ratios["centred", 1280] > ratios["centred", 20]
    assert ratios["concentrated", 1280] < 0.5 * ratios["concentrated", 20]


def test_a_zero_sample_takes_both_bounds_to_zero():
    x = np.diag([1.0, 0.0, 2.0])
    assert limiting_lower_bound(x, depth=3) == nguyen21_limiting_lower(x, r=2) == 0.0


# --- the upper bound by the rank of low powers ----------------------------------------------------


@pytest.mark.parametrize("depth", DEPTHS)
def test_rank_bound_lies_above_the_smallest_eigenvalue_on_a_hundred_draws(depth):
    for seed in range(5):
        for n, d in [(1, 3), (2, 1), (10, 30), (40, 12), (60, 2)]:
            for law, x in laws(seed, n, d).items():
                k = limiting_kernel(x, depth)
                rounding = 1e-13 * np.trace(k)
                upper = limiting_rank_upper_bound(x, depth=depth)
                assert smallest_eigenvalue(k) <= upper + rounding, law


def test_rank_bound_keeps_the_power_zero_for_few_samples():
    # N <= d + 1 samples: only k = 0, of rank 1, and T_0 = L - b_{L,0}
    expected = 9 * (2 - 1 / math.pi) * 6 / 5
    assert limiting_rank_upper_bound(3 * np.eye(6), depth=2) == pytest.approx(expected, rel=1e-9)


def test_rank_bound_of_the_linear_model_is_zero_once_samples_outnumber_dimensions(key):
    assert limiting_rank_upper_bound(gaussian(key, 8, 3), depth=1) == 0
    assert limiting_rank_upper_bound(gaussian(key, 4, 3), depth=1) > 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rank_bound_is_within_a_factor_four_on_the_sphere_and_fails_for_a_larger_dimension(seed):
    # ratios of 0.34 to 0.36, and of 1.10, when they were measured
    x = uniform_sphere(jax.random.key(seed), 400, 16)
    upper = limiting_rank_upper_bound(x, depth=3) / 16
    assert upper / 4 < smallest_eigenvalue(limiting_kernel(x, 3)) / 16 < upper
    more = uniform_sphere(jax.random.key(seed), 400, 400)
    assert smallest_eigenvalue(limiting_kernel(more, 3)) / 400 > 1.05 * upper


# --- certificates against 60 digits ---------------------------------------------------------------


def test_certificates_of_the_limit_hold_to_60_digits_at_any_scale_and_angle():
    n_positive = {"one order": 0, "all orders": 0}
    for seed in range(72):
        x, depth = truth.hard_samples(seed), 1 + seed // 6 % 3
        k, _ = truth.limiting(x, depth)
        lambda_min, negligible = truth.lambda_min(k), truth.NEGLIGIBLE * truth.trace(k)
        exact = lambda_min + negligible
        for exact_orders in (0, 3):
            lower = limiting_lower_bound(x, depth=depth, exact_orders=exact_orders)
            assert 0 <= lower <= exact, seed
            n_positive["all orders"] += lower > 0
        assert limiting_rank_upper_bound(x, depth=depth) >= lambda_min - negligible, seed
        if depth > 1:
            for r in (2, 6):
                lower = nguyen21_limiting_lower(x, r=r)
                assert 0 <= lower <= exact, seed
                n_positive["one order"] += lower > 0
    assert min(n_positive.values()) > 10


@pytest.mark.parametrize("size", [1.0, 1e150, 1e153, 1e-150])
def test_parallel_samples_have_certificates_of_exactly_0_at_any_scale(size):
    for row in ([size, size], [1.0, 1.0], [-3.0, -3.0]):
        x = np.array([[size, size], row])
        assert nguyen21_limiting_lower(x, r=2) == 0
        for exact_orders in (0, 4):
            assert limiting_lower_bound(x, depth=2, exact_orders=exact_orders) == 0


def test_no_order_is_so_high_that_it_tells_a_repeated_sample_from_itself():
    # of cosines that were rounded to 1 - 2^-53, a high power is far below 1
    for seed in range(50):
        x = np.random.default_rng(seed).normal(size=(1, 7))
        for order in (10**8, 10**12, 10**16):
            assert nguyen21_limiting_lower(np.vstack([x, 3 * x]), r=order) == 0


def test_nearly_parallel_samples_of_the_linear_model_have_no_certificate_above_the_truth():
    rng = np.random.default_rng(0)
    for _ in range(100):
        base, angle = rng.uniform(0, 6), 10 ** rng.uniform(-8.5, -3)
        x = np.array([[math.cos(a), math.sin(a)] for a in (base, base + angle)])
        exact = truth.lambda_min(truth.limiting(x, 1)[0])
        assert limiting_lower_bound(x, depth=1, exact_orders=1) <= exact


@pytest.mark.parametrize("depth", DEPTHS)
def test_what_is_taken_off_for_rounding_is_at_most_1e_9_of_the_upper_bound(depth):
    for seed in range(10):
        x = np.asarray(gaussian(jax.random.key(seed), 5, 400))
        norms = np.linalg.norm(x, axis=1)
        size = np.abs(x / norms[:, None] @ (x / norms[:, None]).T)
        np.fill_diagonal(size, 0)
        b = limiting_power_series(depth, 200)
        gershgorin = [0, *(max(0, 1 - (size**p).sum(axis=1).max()) for p in range(1, 200))]
        without = norms.min() ** 2 * (b @ gershgorin + (depth - b.sum()) * gershgorin[-1])
        upper = depth * norms.min() ** 2
        lower = limiting_lower_bound(x, depth=depth)
        assert 0 < without - 1e-9 * upper <= lower <= without * (1 + 1e-13)


@pytest.mark.parametrize("depth", [2, 4, 6])
def test_coefficients_are_right_far_within_the_margin_that_is_taken_off_for_them(depth):
    # relative errors of at most 274 · 2^-53 were measured, at 1000 terms for depths up to 6
    exact = truth.power_series(depth, 300)
    found = limiting_power_series(depth, 300)
    assert (found[exact == 0] == 0).all()
    relative = np.abs(found[exact > 0] / exact[exact > 0] - 1)
    assert relative.max() < ROUNDINGS / 1000


def test_no_order_is_so_high_that_its_certificate_is_above_the_truth():
    x = np.eye(2)
    lambda_min = smallest_eigenvalue(limiting_ntk(x, depth=2))
    bounds = [nguyen21_limiting_lower(x, r=10**e) for e in (1, 3, 15, 17, 60, 300)]
    assert bounds == sorted(bounds, reverse=True)
    assert 0 <= bounds[-1] < bounds[0] < lambda_min


@pytest.mark.parametrize("cached", [1, 100, 10**6])
def test_a_bound_does_not_depend_on_how_many_rows_are_raised_to_powers_at_once(
    cached, key, monkeypatch
):
    x = gaussian(key, 40, 5)
    expected = limiting_lower_bound(x, depth=2, n_terms=1000)
    u = np.asarray(x) / np.linalg.norm(x, axis=1, keepdims=True)
    off_diagonal = np.abs(u @ u.T) * (1 - np.eye(40))
    bounds = [max(0, 1 - (off_diagonal**p).sum(axis=1).max()) for p in range(1, 1000)]
    b = limiting_power_series(2, 1000)
    by_hand = b[1:] @ bounds + (2 - b.sum()) * bounds[-1]
    assert expected == pytest.approx(np.square(x).sum(axis=1).min() * by_hand, rel=1e-7)
    monkeypatch.setattr(ntk_utils.bounds.limiting, "_CACHED", cached)
    assert limiting_lower_bound(x, depth=2, n_terms=1000) == expected > 0
