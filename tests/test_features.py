import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_utils import (
    Network,
    as_stax,
    ascend_jacobian_norms,
    feature_jacobian_norms_squared,
    feature_matrices,
    gaussian,
    hermite_coefficient,
    init_params,
    khatri_rao_power,
    lipschitz_product_squared,
    mean_feature_gram,
    mean_feature_gram_lower_bound,
    mean_feature_norms_squared,
    nguyen21_feature_sigma_min_squared,
    nguyen21_lipschitz_squared_upper,
    smallest_eigenvalue,
    uniform_sphere,
)


def draw(widths, seed, n_samples=10, init="lecun"):
    """Weights and samples of a network."""
    key_x, key_w = jax.random.split(jax.random.key(seed))
    return init_params(Network(widths, init), key_w), gaussian(key_x, n_samples, widths[0])


def sigma_min_squared(f):
    return smallest_eigenvalue(f @ f.T)


# --- Theorem 5.1 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3])
def test_feature_rate_under_lecun_is_the_width_and_under_he_twice_that_for_every_relu(k):
    widths = (7, 30, 5, 11, 1)
    lecun, he = Network(widths), Network(widths, "he")
    assert nguyen21_feature_sigma_min_squared(lecun, k) == pytest.approx(widths[k], rel=1e-12)
    assert nguyen21_feature_sigma_min_squared(he, k) == pytest.approx(2**k * widths[k], rel=1e-12)


def test_feature_rate_agrees_with_the_theorem_written_out():
    network = Network((7, 30, 5, 11, 1), init=(0.5, 0.3, 1.5, 9.0))
    expected = 7 * (30 * 0.5**2) * (5 * 0.3**2)
    assert nguyen21_feature_sigma_min_squared(network, 2) == pytest.approx(expected, rel=1e-12)


# 100 draws each: widths, and half of the least that σ_min² / rate was over another 20 draws
SMALLEST_RATIO = {(20, 320, 1): 0.017, (20, 20, 320, 1): 0.0015}


@pytest.mark.parametrize("widths", SMALLEST_RATIO)
def test_smallest_singular_value_lies_between_constants_of_the_rate_on_every_draw(widths):
    k = len(widths) - 2
    rate = nguyen21_feature_sigma_min_squared(Network(widths), k)
    for seed in range(100):
        params, x = draw(widths, seed, n_samples=20)
        ratio = sigma_min_squared(feature_matrices(params, x)[k]) / rate
        # from above, the constant of the mean, 2^{-k}, up to the fluctuation of ‖x_i‖²/d
        assert SMALLEST_RATIO[widths] < ratio < 0.5**k


def test_smallest_singular_value_keeps_its_ratio_to_the_rate_while_both_grow_fourfold(key):
    ratios = [mean_ratio(n, key) for n in (25, 50, 100)]
    assert max(ratios) / min(ratios) < 1.6


def mean_ratio(n_samples, key):
    """σ_min(F_1)² / rate, mean over 5 draws; N = d and n_1 = 8N."""
    network = Network((n_samples, 8 * n_samples, 1), "he")
    rate = nguyen21_feature_sigma_min_squared(network, 1)
    ratios = []
    for k in jax.random.split(key, 5):
        key_x, key_w = jax.random.split(k)
        x = uniform_sphere(key_x, n_samples, n_samples)
        f = feature_matrices(init_params(network, key_w), x)[1]
        ratios.append(sigma_min_squared(f) / rate)
    return np.mean(ratios)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_repeated_sample_or_a_narrow_layer_takes_the_smallest_singular_value_to_zero(seed):
    params, x = draw((20, 320, 1), seed, n_samples=20)
    f = feature_matrices(params, x)[1]
    f_repeated = feature_matrices(params, x.at[7].set(x[3]))[1]
    f_narrow = f[:, :19]
    assert sigma_min_squared(f) > 1
    for singular in (f_repeated, f_narrow):
        assert abs(sigma_min_squared(singular)) < 1e-12 * float((f**2).sum())


@pytest.mark.parametrize("init", ["lecun", "he", (0.5, 0.8, 1.5, 0.7)])
def test_mean_feature_norms_agree_with_the_average_over_draws(init):
    network = Network((4, 9, 6, 8, 1), init)
    x = gaussian(jax.random.key(0), 3, 4)
    rng, n_draws = np.random.default_rng(1), 20_000
    f = np.broadcast_to(x, (n_draws, 3, 4))
    for k in (1, 2, 3):
        shape = (n_draws, network.widths[k - 1], network.widths[k])
        f = np.maximum(f @ (network.betas[k - 1] * rng.normal(size=shape)), 0)
        squared_norms = (f**2).sum(axis=2)
        standard_error = squared_norms.std(axis=0) / math.sqrt(n_draws)
        exact = np.asarray(mean_feature_norms_squared(network, x, k))
        assert (standard_error < 0.02 * exact).all()
        assert (np.abs(squared_norms.mean(axis=0) - exact) < 5 * standard_error).all()


@pytest.mark.parametrize("init", ["lecun", "he", (0.5, 0.8, 1.5)])
def test_mean_gram_of_the_first_layer_agrees_with_the_kernel_of_neural_tangents(init, key):
    network = Network((5, 40, 30, 1), init)
    x = gaussian(key, 6, 5)
    # the kernel of the output of a two-layer network is β_2² times the mean Gram matrix
    _, _, kernel_fn = as_stax(Network((5, 40, 1), (network.betas[0], 1.0)))
    expected = kernel_fn(x, None, "nngp")
    np.testing.assert_allclose(mean_feature_gram(network, x, 1), expected, rtol=1e-6)


def test_mean_gram_is_the_power_series_in_the_hermite_coefficients(key):
    network = Network((5, 40, 7, 1), init=(0.5, 0.8, 1.5))
    f = np.asarray(gaussian(key, 6, 40))
    norms = np.linalg.norm(f, axis=1)
    cosine = (f @ f.T) / np.outer(norms, norms)
    off_diagonal = ~np.eye(6, dtype=bool)
    series = sum(hermite_coefficient(r) ** 2 * cosine**r for r in range(200))
    expected = 7 * 0.8**2 * np.outer(norms, norms) * series
    gram = mean_feature_gram(network, f, 2)
    np.testing.assert_allclose(gram[off_diagonal], expected[off_diagonal], rtol=1e-10)
    np.testing.assert_allclose(np.diagonal(gram), 7 * 0.8**2 * norms**2 / 2, rtol=1e-12)


def test_mean_gram_bounds_the_mean_smallest_eigenvalue_from_above_and_is_near_for_wide_layers():
    network = Network((20, 20, 640, 1), "he")
    params, x = draw(network.widths, 0, n_samples=20, init="he")
    f = feature_matrices(params, x)[1]
    limit = smallest_eigenvalue(mean_feature_gram(network, f, 2))
    values = []
    for seed in range(100):
        w = init_params(network, jax.random.key(seed))[1]
        values.append(sigma_min_squared(np.maximum(np.asarray(f @ w), 0)))
    assert 0.5 * limit < np.mean(values) <= limit


def test_mean_gram_is_singular_for_repeated_rows_and_zero_for_a_zero_row(key):
    network = Network((5, 40, 1))
    x = np.asarray(gaussian(key, 4, 5)).copy()
    x[1], x[2] = 2 * x[0], 0
    gram = mean_feature_gram(network, x, 1)
    assert not gram[2].any()
    kept = gram[np.ix_([0, 1, 3], [0, 1, 3])]
    assert abs(smallest_eigenvalue(kept)) < 1e-6 * np.trace(kept)


# widths, and half of the least that the certificate / λ_min was over another 20 draws
CERTIFIED_SHARE = {(40, 160, 1): 0.027, (400, 160, 1): 0.13, (40, 400, 160, 1): 0.022}


@pytest.mark.parametrize("widths", CERTIFIED_SHARE)
def test_certificate_of_the_mean_gram_is_valid_and_not_vacuous_on_every_draw(widths):
    network, k = Network(widths, "he"), len(widths) - 2
    for seed in range(100):
        params, x = draw(widths, seed, n_samples=20, init="he")
        f = feature_matrices(params, x)[k - 1]
        exact = smallest_eigenvalue(mean_feature_gram(network, f, k))
        bound = mean_feature_gram_lower_bound(network, f, k)
        assert CERTIFIED_SHARE[widths] * exact < bound <= exact


def test_certificate_of_orthogonal_rows_is_the_sum_of_the_squared_hermite_coefficients():
    network = Network((6, 40, 1), (0.5, 1.0))
    bound = mean_feature_gram_lower_bound(network, np.diag([3.0, 4, 5, 6, 7, 8]), 1)
    series = sum(hermite_coefficient(r) ** 2 for r in range(2, 41, 2))
    assert bound == pytest.approx(40 * 0.5**2 * 9 * series, rel=1e-12)


def test_projecting_the_mean_out_certifies_rows_that_share_a_large_mean():
    # cosines of 1/2: the row sums of the raw powers stay above 1 up to high orders
    n = 200
    f = np.hstack([np.eye(n), np.full((n, n), 1 / math.sqrt(n))])
    network = Network((2 * n, 800, 1))
    raw = sum(hermite_coefficient(r) ** 2 * max(0, 1 - (n - 1) * 0.5**r) for r in range(2, 41, 2))
    scale = 800 / (2 * n) * 2  # n_1 β_1² ‖f_i‖²
    assert mean_feature_gram_lower_bound(network, f, 1) > 2 * scale * raw > 0


def test_certificate_is_zero_for_a_repeated_or_a_zero_row(key):
    network = Network((40, 160, 1))
    x = np.asarray(gaussian(key, 5, 40))
    assert mean_feature_gram_lower_bound(network, x, 1) > 0
    for row in (2 * x[0], 0 * x[0]):
        assert mean_feature_gram_lower_bound(network, np.vstack([x, row]), 1) < 1e-12


# --- Khatri–Rao powers ----------------------------------------------------------------------------


def test_khatri_rao_power_of_a_row_is_its_tensor_power():
    np.testing.assert_array_equal(khatri_rao_power([[1.0, 2.0]], 2), [[1, 2, 2, 4]])
    np.testing.assert_array_equal(
        khatri_rao_power([[1.0, 2.0], [0.0, 3.0]], 3),
        [[1, 2, 2, 4, 2, 4, 4, 8], [0, 0, 0, 0, 0, 0, 0, 27]],
    )


@pytest.mark.parametrize("r", [1, 2, 3, 5])
def test_gram_matrix_of_the_khatri_rao_power_is_the_hadamard_power(r, key):
    x = gaussian(key, 7, 4)
    power = khatri_rao_power(x, r)
    assert power.shape == (7, 4**r)
    np.testing.assert_allclose(power @ power.T, (x @ x.T) ** r, rtol=1e-10, atol=1e-12)


def test_a_khatri_rao_power_separates_more_samples_than_there_are_dimensions(key):
    x = gaussian(key, 12, 5)  # rank 5, and 15 of the symmetric square
    assert abs(smallest_eigenvalue(x @ x.T)) < 1e-10
    assert sigma_min_squared(khatri_rao_power(x, 2)) > 1e-3


# --- Theorem 6.2 ----------------------------------------------------------------------------------


def test_lipschitz_rate_agrees_with_the_theorem_written_out():
    network = Network((7, 30, 5, 11, 1), init=(0.5, 0.3, 1.5, 9.0))
    rate = 7 * 30 * 5 * 11 / 5 * (0.5 * 0.3 * 1.5) ** 2
    assert nguyen21_lipschitz_squared_upper(network, 3, logs=False) == pytest.approx(rate)
    with_logs = rate * math.log(30) * math.log(5)
    assert nguyen21_lipschitz_squared_upper(network, 3) == pytest.approx(with_logs)
    # the first layer has no logarithm, and a minimum over the widths 7 and 30 alone
    assert nguyen21_lipschitz_squared_upper(network, 1) == pytest.approx(30 * 0.5**2)


def test_lipschitz_rate_under_lecun_is_the_width_over_the_narrowest_width_before():
    network = Network((7, 30, 5, 11, 1))
    rates = [nguyen21_lipschitz_squared_upper(network, k, logs=False) for k in (1, 2, 3)]
    assert rates == pytest.approx([30 / 7, 1, 11 / 5])


def test_product_of_norms_is_that_of_diagonal_weights():
    params = (np.diag([3.0, 1.0]), np.diag([0.5, -2.0]), np.ones((2, 1)))
    assert lipschitz_product_squared(params, 1) == pytest.approx(9)
    assert lipschitz_product_squared(params, 2) == pytest.approx(36)


# the narrowest layer first, last and in between: the Jacobian is taken apart there
@pytest.mark.parametrize("widths", [(3, 9, 7, 1), (6, 9, 4, 1), (6, 3, 7, 1), (6, 9, 3, 8, 5, 1)])
def test_jacobian_norms_are_those_of_the_jacobian_by_differentiation(widths):
    params, x = draw(widths, 0, n_samples=5)
    k = len(widths) - 2
    jacobians = jax.jit(jax.vmap(jax.jacobian(lambda row: features_of_one(params, row))))(x)
    expected = np.linalg.norm(jacobians, ord=2, axis=(1, 2)) ** 2
    norms = feature_jacobian_norms_squared(params, x, k)
    np.testing.assert_allclose(norms, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_jacobian_of_a_layer_does_not_look_at_later_weights(k):
    params, x = draw((6, 9, 5, 8, 1), 0)
    norms = feature_jacobian_norms_squared(params, x, k)
    shortened = (*params[:k], params[k][:, :1])
    np.testing.assert_allclose(feature_jacobian_norms_squared(shortened, x, k), norms)
    assert lipschitz_product_squared(shortened, k) == lipschitz_product_squared(params, k)


def features_of_one(params, row):
    for w in params[:-1]:
        row = jax.nn.relu(row @ w)
    return row


def test_jacobian_of_an_isometry_has_norm_one_where_the_naive_product_is_two(key):
    # (x₊, x₋): at every x half of the neurons are off
    split = np.hstack([np.eye(5), -np.eye(5)])
    params = (split, np.ones((10, 1)))
    norms = feature_jacobian_norms_squared(params, gaussian(key, 8, 5), 1)
    np.testing.assert_allclose(norms, np.ones(8), rtol=1e-12)
    assert lipschitz_product_squared(params, 1) == pytest.approx(2)


def test_jacobian_norm_does_not_change_along_a_ray_and_is_zero_at_the_origin():
    params, x = draw((6, 9, 5, 8, 1), 0)
    norms = feature_jacobian_norms_squared(params, x, 3)
    np.testing.assert_allclose(feature_jacobian_norms_squared(params, 3.7 * x, 3), norms)
    assert not feature_jacobian_norms_squared(params, 0 * x, 3).any()


# widths, and the constant times the rate without logarithms that the norm exceeds somewhere: the
# rate is tight for a bottleneck
ARCHITECTURES = {(20, 20, 20, 20, 1): 0.5, (40, 4, 40, 4, 40, 1): 0.2, (30, 5, 30, 1): 0.2}


@pytest.mark.parametrize("widths", ARCHITECTURES)
def test_largest_jacobian_norm_stays_below_four_times_the_rate_and_below_the_product(widths):
    network, k = Network(widths), len(widths) - 2
    rate = nguyen21_lipschitz_squared_upper(network, k)
    sharp = nguyen21_lipschitz_squared_upper(network, k, logs=False)
    largest = []
    for seed in range(100):
        params, x = draw(widths, seed, n_samples=20)
        norm = float(feature_jacobian_norms_squared(params, x, k).max())
        assert norm <= lipschitz_product_squared(params, k) * (1 + 1e-12)
        # 4 = (1 + 1)²: the constant that one square layer needs, ‖W_1‖² ≈ β_1² (√n_0 + √n_1)²
        assert norm < 4 * rate
        largest.append(norm)
    assert np.median(largest) > ARCHITECTURES[widths] * sharp


@pytest.mark.parametrize("seed", range(5))
def test_difference_quotients_stay_below_the_product(seed):
    params, x = draw((6, 9, 5, 8, 1), seed, n_samples=50)
    x_moved = x + 0.1 * gaussian(jax.random.key(seed + 100), 50, 6)
    f, f_moved = feature_matrices(params, x)[3], feature_matrices(params, x_moved)[3]
    quotients = jnp.square(f - f_moved).sum(axis=1) / jnp.square(x - x_moved).sum(axis=1)
    assert 0 < float(quotients.max()) <= lipschitz_product_squared(params, 3)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_at_width_one_the_lipschitz_rate_is_zero_though_the_feature_map_is_not_constant(seed):
    network = Network((20, 1, 20, 1))
    params, x = draw(network.widths, seed, n_samples=20)
    assert nguyen21_lipschitz_squared_upper(network, 2) == 0
    assert float(feature_jacobian_norms_squared(params, x, 2).max()) > 0.1


# --- gradient ascent ------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(20, 20, 20, 1), (40, 4, 40, 4, 40, 1)])
def test_ascent_never_loses_keeps_the_norm_of_the_samples_and_stays_below_the_product(widths):
    k = len(widths) - 2
    for seed in range(3):
        params, x = draw(widths, seed, n_samples=20)
        found = ascend_jacobian_norms(params, x, k)
        before = np.asarray(feature_jacobian_norms_squared(params, x, k))
        after = np.asarray(feature_jacobian_norms_squared(params, found, k))
        assert (after >= before).all()
        assert np.median(after) > 1.2 * np.median(before)
        assert after.max() <= lipschitz_product_squared(params, k)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(x, axis=1))


@pytest.mark.parametrize("seed", range(5))
def test_ascent_finds_the_known_supremum_of_one_square_layer(seed):
    # W_1 is invertible, so some x opens all gates at once, and the supremum is ‖W_1‖²
    params, x = draw((30, 30, 1), seed, n_samples=20)
    norms = feature_jacobian_norms_squared(params, ascend_jacobian_norms(params, x, 1), 1)
    assert float(norms.max()) > 0.95 * lipschitz_product_squared(params, 1)


def test_ascent_leaves_a_sample_at_the_origin_and_frees_one_on_which_the_layer_is_dead():
    params = (-np.eye(3), np.eye(3), np.ones((3, 1)))
    x = np.array([[0.0, 0.0, 0.0], [1.0, 0.2, 0.5]])
    found = np.asarray(ascend_jacobian_norms(params, x, 2))
    assert not found[0].any()
    assert not feature_jacobian_norms_squared(params, x, 2).any()
    assert feature_jacobian_norms_squared(params, found, 2)[1] == 1
