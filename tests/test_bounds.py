import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from numpy.polynomial.hermite_e import hermeval

from ntk_utils import (
    Network,
    as_stax,
    diagonal_upper_bound,
    empirical_ntk,
    gaussian,
    hermite_coefficient,
    init_params,
    layer_ntks,
    limiting_ntk,
    mean_kernel_diagonal,
    mean_layer_diagonals,
    nguyen21_lambda_min_lower,
    nguyen21_lambda_min_upper,
    schur_lower_bound,
    schur_terms,
    smallest_eigenvalue,
    uniform_sphere,
)


def draw(widths, seed, n_samples=10, init="he"):
    """Weights and samples of a network."""
    key_x, key_w = jax.random.split(jax.random.key(seed))
    return init_params(Network(widths, init), key_w), gaussian(key_x, n_samples, widths[0])


# --- Hermite coefficients -------------------------------------------------------------------------


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


# --- certificates for one draw --------------------------------------------------------------------

# widths, and half of the least that schur_lower_bound / λ_min was over 20 draws: the bound is sharp
# for a single wide layer, and pays for narrow layers after it
SHARPNESS = {
    (12, 192, 1): 0.4,
    (20, 20, 320, 1): 0.2,
    (20, 320, 20, 1): 0.08,
    (10, 160, 20, 1): 0.05,
}


@pytest.mark.parametrize("widths", [*SHARPNESS, (4, 5, 30, 5, 1)])
def test_smallest_eigenvalue_lies_between_schur_and_diagonal_on_every_draw(widths):
    for seed in range(100):
        params, x = draw(widths, seed)
        k = empirical_ntk(params, x)
        lambda_min = smallest_eigenvalue(k)
        rounding = 1e-13 * float(np.trace(k))
        assert 0 <= schur_lower_bound(params, x) <= lambda_min + rounding
        assert lambda_min <= diagonal_upper_bound(k) + rounding


@pytest.mark.parametrize("widths", SHARPNESS)
def test_neither_side_of_the_sandwich_is_vacuous_with_a_wide_layer(widths):
    for seed in range(10):
        params, x = draw(widths, seed)
        k = empirical_ntk(params, x)
        lambda_min = smallest_eigenvalue(k)
        assert schur_lower_bound(params, x) > SHARPNESS[widths] * lambda_min
        assert diagonal_upper_bound(k) < 100 * lambda_min


@pytest.mark.parametrize("seed", range(5))
def test_each_schur_term_bounds_its_own_layer_term_and_they_sum_to_the_bound(seed):
    params, x = draw((12, 24, 18, 30, 1), seed)
    terms = schur_terms(params, x)
    assert terms.shape == (4,)
    assert schur_lower_bound(params, x) == pytest.approx(terms.sum(), rel=1e-14)
    for term, layer in zip(terms, layer_ntks(params, x), strict=True):
        assert 0 < term <= smallest_eigenvalue(layer) * (1 + 1e-12)


def test_schur_terms_are_the_smallest_gram_eigenvalue_times_the_smallest_squared_row(key):
    (w_1, w_2), x = draw((12, 30, 1), 0)
    x = x + gaussian(key, 10, 12)
    f_1 = np.maximum(x @ w_1, 0)
    b_1 = (f_1 > 0) * np.asarray(w_2).T
    expected = [
        np.linalg.eigvalsh(x @ x.T)[0] * (b_1**2).sum(axis=1).min(),
        np.linalg.eigvalsh(f_1 @ f_1.T)[0],
    ]
    np.testing.assert_allclose(schur_terms((w_1, w_2), x), expected, rtol=1e-10)


@pytest.mark.parametrize("d", [4, 9])
def test_schur_bound_is_exact_for_the_linear_model_of_as_many_dimensions_as_samples(d, key):
    x = gaussian(key, 4, d)
    params = init_params(Network((d, 1)), key)
    lambda_min = smallest_eigenvalue(x @ x.T)
    assert lambda_min > 0
    assert schur_lower_bound(params, x) == pytest.approx(lambda_min, rel=1e-10)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_schur_term_is_exactly_zero_in_a_layer_narrower_than_the_sample(seed):
    params, x = draw((5, 9, 40, 9, 1), seed)
    np.testing.assert_array_equal(schur_terms(params, x) > 0, [False, False, True, False])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_without_a_wide_layer_the_schur_bound_is_zero_though_the_kernel_may_be_definite(seed):
    params, x = draw((5, 9, 9, 1), seed)
    k = empirical_ntk(params, x)
    assert schur_lower_bound(params, x) == 0.0
    assert smallest_eigenvalue(k) > 1e-8 * np.trace(k)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_repeated_point_takes_both_the_eigenvalue_and_its_bound_to_zero(seed):
    params, x = draw((12, 160, 20, 1), seed)
    repeated = x.at[7].set(x[3])
    k = empirical_ntk(params, repeated)
    rounding = 1e-12 * float(np.trace(k))
    assert schur_lower_bound(params, x) > 1e3 * rounding
    assert 0 <= schur_lower_bound(params, repeated) < rounding
    assert abs(smallest_eigenvalue(k)) < rounding


def test_diagonal_bound_is_the_smallest_diagonal_entry_and_exact_for_diagonal_matrices():
    assert diagonal_upper_bound(np.array([[3.0, 1.0], [1.0, 2.0]])) == 2.0
    k = np.diag([3.0, -1.0, 2.0])
    assert diagonal_upper_bound(k) == smallest_eigenvalue(k) == -1.0


def test_diagonal_bound_of_the_limit_is_depth_times_the_smallest_squared_norm(key):
    x = np.asarray(gaussian(key, 6, 5))
    k = limiting_ntk(x, depth=3)
    bound = diagonal_upper_bound(k)
    assert bound == pytest.approx(3 * (x**2).sum(axis=1).min(), rel=1e-7)
    assert smallest_eigenvalue(k) < bound < 100 * smallest_eigenvalue(k)


# --- the mean of the diagonal ---------------------------------------------------------------------


@pytest.mark.parametrize("init", ["lecun", "he", (0.5, 0.8, 1.5, 0.7)])
def test_mean_diagonals_agree_with_the_average_over_draws(init):
    network = Network((4, 9, 6, 8, 1), init)
    x = gaussian(jax.random.key(0), 3, 4)
    layers = layer_diagonals_of_draws(network, x, n_draws=20_000)
    assert_mean_within_five_standard_errors(layers, mean_layer_diagonals(network, x))
    assert_mean_within_five_standard_errors(layers.sum(axis=1), mean_kernel_diagonal(network, x))


def assert_mean_within_five_standard_errors(draws, exact):
    exact = np.asarray(exact)
    standard_error = draws.std(axis=0) / math.sqrt(len(draws))
    assert (standard_error < 0.02 * exact).all()
    assert (np.abs(draws.mean(axis=0) - exact) < 5 * standard_error).all()


def layer_diagonals_of_draws(network, x, n_draws):
    """The diagonals of the layer terms for independent weights, shape (n_draws, L, N)."""
    rng = np.random.default_rng(1)
    shapes = zip(network.betas, network.widths[:-1], network.widths[1:], strict=True)
    return np.asarray(
        layer_diagonals([beta * rng.normal(size=(n_draws, n, m)) for beta, n, m in shapes], x)
    )


@jax.jit
def layer_diagonals(many_params, x):
    return jax.vmap(lambda p: jnp.diagonal(layer_ntks(p, x), axis1=1, axis2=2))(many_params)


@pytest.mark.parametrize("init", ["lecun", "he", (0.5, 0.3, 1.5)])
def test_mean_diagonal_agrees_with_the_kernel_of_neural_tangents(init, key):
    network = Network((5, 40, 30, 1), init)
    x = gaussian(key, 4, 5)
    _, _, kernel_fn = as_stax(network)
    diagonal = np.diagonal(kernel_fn(x, None, "ntk"))
    np.testing.assert_allclose(mean_kernel_diagonal(network, x), diagonal, rtol=1e-7)


def test_mean_diagonal_of_the_linear_model_is_the_squared_norm(key):
    x = np.asarray(gaussian(key, 4, 5))
    mean = mean_kernel_diagonal(Network((5, 1), init=(7.0,)), x)
    np.testing.assert_allclose(mean, (x**2).sum(axis=1), rtol=1e-13)


def test_mean_diagonals_of_the_layers_under_lecun_are_proportional_to_the_widths(key):
    x = np.asarray(gaussian(key, 4, 5))
    diagonals = mean_layer_diagonals(Network((5, 40, 30, 1)), x)
    expected = np.outer([5, 40, 30], (x**2).sum(axis=1) / 5) / 4
    np.testing.assert_allclose(diagonals, expected, rtol=1e-12)


def test_scaling_one_beta_scales_the_mean_diagonal_of_every_layer_but_its_own(key):
    x, betas = gaussian(key, 4, 5), (0.5, 0.8, 1.5, 0.7)
    before = mean_layer_diagonals(Network((5, 8, 6, 9, 1), betas), x)
    for layer in range(4):
        scaled = tuple(3 * beta if i == layer else beta for i, beta in enumerate(betas))
        after = mean_layer_diagonals(Network((5, 8, 6, 9, 1), scaled), x)
        factors = np.where(np.arange(4) == layer, 1.0, 9.0)[:, None]
        np.testing.assert_allclose(after, factors * np.asarray(before), rtol=1e-12)


@pytest.mark.parametrize("widths", [(20, 320, 1), (10, 320, 40, 1), (10, 40, 320, 1)])
def test_mean_diagonal_bounds_the_mean_eigenvalue_of_100_draws_and_is_not_vacuous(widths):
    network = Network(widths, "he")
    x = uniform_sphere(jax.random.key(0), 10, widths[0])
    lambda_mins = [
        smallest_eigenvalue(empirical_ntk(init_params(network, jax.random.key(seed)), x))
        for seed in range(100)
    ]
    bound = float(mean_kernel_diagonal(network, x).min())
    # their ratio, measured once: 4.3, 3.6, 8.0
    assert np.mean(lambda_mins) < bound < 12 * np.mean(lambda_mins)


def test_the_mean_diagonals_need_weights_of_mean_zero():
    network = Network((4, 9, 6, 8, 1))
    x = gaussian(jax.random.key(0), 3, 4)
    exact = np.asarray(mean_layer_diagonals(network, x))
    rng = np.random.default_rng(1)
    shapes = zip(network.betas, network.widths[:-1], network.widths[1:], strict=True)
    shifted = [beta * rng.normal(0.5, size=(1000, n, m)) for beta, n, m in shapes]
    draws = np.asarray(layer_diagonals(shifted, x))
    standard_error = draws.std(axis=0) / math.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - exact) > 10 * standard_error).any()


# --- the rates of Theorem 4.1 ---------------------------------------------------------------------


def test_upper_rate_under_lecun_is_the_sum_of_the_widths_before_the_output():
    assert nguyen21_lambda_min_upper(Network((7, 30, 5, 11, 1))) == pytest.approx(53, rel=1e-12)


@pytest.mark.parametrize("widths", [(7, 1), (7, 30, 1), (7, 30, 5, 1), (7, 30, 5, 11, 1)])
def test_rates_under_he_are_those_under_lecun_times_two_for_every_relu(widths, key):
    lecun, he = Network(widths, "lecun"), Network(widths, "he")
    x, factor = gaussian(key, 6, 7), 2.0 ** (len(widths) - 2)
    assert nguyen21_lambda_min_upper(he) == pytest.approx(
        factor * nguyen21_lambda_min_upper(lecun), rel=1e-12
    )
    assert nguyen21_lambda_min_lower(he, x) == pytest.approx(
        factor * nguyen21_lambda_min_lower(lecun, x), rel=1e-12
    )


def test_rates_agree_with_the_theorem_written_out_for_depth_three(key):
    # N = 6 samples: the layer of width 30 counts in the lower bound, that of width 5 does not
    b_1, b_2, b_3 = 0.5, 0.3, 1.5
    network = Network((7, 30, 5, 1), init=(b_1, b_2, b_3))
    x = np.asarray(gaussian(key, 6, 7))
    products = 150 * np.array([(b_2 * b_3) ** 2, (b_1 * b_3) ** 2, (b_1 * b_2) ** 2])
    data_term = np.linalg.eigvalsh(x @ x.T)[0] * products[0]
    assert nguyen21_lambda_min_upper(network) == pytest.approx(7 * products.sum(), rel=1e-12)
    for r in (2, 4):
        lower = hermite_coefficient(r) ** 2 * 7 * products[1] + data_term
        assert nguyen21_lambda_min_lower(network, x, r=r) == pytest.approx(lower, rel=1e-10)


def test_lower_rate_counts_a_layer_from_as_many_neurons_as_samples_on(key):
    x = gaussian(key, 20, 5)  # more samples than dimensions: no term of the data
    assert nguyen21_lambda_min_lower(Network((5, 19, 19, 1)), x) == 0.0
    assert nguyen21_lambda_min_lower(Network((5, 19, 20, 1)), x) == pytest.approx(
        20 * hermite_coefficient(2) ** 2, rel=1e-12
    )


def test_default_order_of_the_lower_rate_is_two(key):
    network, x = Network((5, 30, 1)), gaussian(key, 20, 5)
    assert nguyen21_lambda_min_lower(network, x) == nguyen21_lambda_min_lower(network, x, r=2)


def test_measured_eigenvalue_stays_within_constants_of_both_rates_across_sizes(key):
    sizes = (25, 50, 100)
    ratios = np.array([mean_ratios_to_rates(n, 8 * n, key) for n in sizes])
    # the eigenvalue itself grows fourfold from the first size to the last
    assert (ratios.max(axis=0) / ratios.min(axis=0) < 1.6).all()
    to_lower, to_upper = ratios.T
    assert to_lower.min() > 0.4
    assert to_lower.max() < 3
    assert to_upper.min() > 0.02
    assert to_upper.max() < 0.2


@pytest.mark.parametrize("n_samples", [25, 100])
def test_the_lower_rate_fails_for_a_repeated_sample_and_the_upper_one_for_samples_too_long(
    n_samples, key
):
    def repeat_one(x):
        return x.at[1].set(x[0])

    to_lower, _ = mean_ratios_to_rates(n_samples, 8 * n_samples, key, repeat_one, n_draws=3)
    assert abs(to_lower) < 1e-10
    # of norm 10 √d: the rates are those of norm √d
    _, to_upper = mean_ratios_to_rates(n_samples, 8 * n_samples, key, lambda x: 10 * x, n_draws=3)
    assert to_upper > 2


def mean_ratios_to_rates(n_samples, width, key, change=lambda x: x, n_draws=12):
    """λ_min over the two rates, mean over the draws; N = d and a second layer of 50.

    Three keys and three sizes make 108 draws.
    """
    network = Network((n_samples, width, 50, 1), "he")
    ratios = []
    for k in jax.random.split(key, n_draws):
        key_x, key_w = jax.random.split(k)
        x = change(uniform_sphere(key_x, n_samples, n_samples))
        lambda_min = smallest_eigenvalue(empirical_ntk(init_params(network, key_w), x))
        rates = nguyen21_lambda_min_lower(network, x), nguyen21_lambda_min_upper(network)
        ratios.append(lambda_min / np.array(rates))
    return np.mean(ratios, axis=0)
