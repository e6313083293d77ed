import math

import jax
import mpmath
import numpy as np
import pytest
import truth
from helpers import draw

from ntk_utils import (
    Network,
    as_stax,
    feature_matrices,
    gaussian,
    hermite_coefficient,
    init_params,
    khatri_rao_power,
    mean_feature_gram,
    mean_feature_gram_lower_bound,
    mean_feature_norms_squared,
    nguyen21_feature_sigma_min_squared,
    nguyen21_feature_width,
    nguyen21_mean_feature_gram_lower,
    project_mean_out,
    smallest_eigenvalue,
    uniform_sphere,
)


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
    assert bound == pytest.approx(40 * 0.5**2 * 9 * series, rel=1e-9)


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


# --- Lemmas 5.3 and 5.4 ---------------------------------------------------------------------------


def with_a_long_nearly_repeated_pair(x):
    """Rows 0 and 1 nearly the same, and three times as long as the others."""
    f = np.array(x)
    f[1] = f[0] + f[1] / 20
    f[:2] *= 3
    return f


@pytest.mark.parametrize("r", [1, 2, 4, 6])
def test_lemma_5_3_bounds_the_mean_gram_whatever_the_norms_of_the_rows(r, key):
    network = Network((60, 400, 1), (0.5, 1.0))
    for f in (gaussian(key, 60, 60), with_a_long_nearly_repeated_pair(gaussian(key, 60, 60))):
        exact = smallest_eigenvalue(mean_feature_gram(network, f, 1))
        assert 0 < nguyen21_mean_feature_gram_lower(network, f, 1, r=r) <= exact


def test_lemma_5_3_is_not_vacuous_and_false_with_the_smallest_norm_in_place_of_the_largest(key):
    network = Network((60, 400, 1), (0.5, 1.0))
    f = with_a_long_nearly_repeated_pair(gaussian(key, 60, 60))
    squared_norms = (f**2).sum(axis=1)
    exact = smallest_eigenvalue(mean_feature_gram(network, f, 1))
    bound = nguyen21_mean_feature_gram_lower(network, f, 1)
    assert exact / 10 < bound
    assert bound * squared_norms.max() / squared_norms.min() > exact


def test_lemma_5_3_agrees_with_its_formula_written_out():
    network = Network((7, 30, 5, 1), init=(0.5, 0.3, 1.5))
    f = np.abs(np.random.default_rng(0).normal(size=(6, 30)))
    for r in (1, 2, 3, 4):
        power = np.linalg.eigvalsh((f @ f.T) ** r)[0]
        expected = power / (f**2).sum(axis=1).max() ** (r - 1) * hermite_coefficient(r) ** 2
        bound = nguyen21_mean_feature_gram_lower(network, f, 2, r=r)
        assert bound == pytest.approx(5 * 0.3**2 * expected, rel=1e-9)


def test_lemma_5_3_gives_zero_for_a_repeated_row_an_odd_order_or_zeros_and_does_not_overflow(key):
    network = Network((40, 160, 1))
    x = np.asarray(gaussian(key, 5, 40))
    assert nguyen21_mean_feature_gram_lower(network, np.vstack([x, x[:1]]), 1) < 1e-12
    assert nguyen21_mean_feature_gram_lower(network, x, 1, r=3) == 0
    assert nguyen21_mean_feature_gram_lower(network, 0 * x, 1) == 0
    huge = nguyen21_mean_feature_gram_lower(network, 1e100 * x, 1, r=8)
    small = nguyen21_mean_feature_gram_lower(network, x, 1, r=8)
    assert huge == pytest.approx(1e200 * small, rel=1e-6)


def test_lemma_5_2_agrees_with_its_formula_written_out(key):
    network, f = Network((7, 12, 5, 1), (0.4, 1.3, 1.0)), gaussian(key, 9, 7)
    one = mean_feature_gram(Network((7, 1, 1), (0.4, 1.0)), f, 1)
    q = 0.4**2 * np.linalg.norm(f) ** 2 / np.linalg.eigvalsh(one)[0]
    expected = q * np.log(4 * q) * np.log(9 / 0.05)
    assert expected > 9
    assert nguyen21_feature_width(network, f, 1, delta=0.05) == pytest.approx(expected)


def test_lemma_5_2_keeps_a_quarter_at_its_width_and_not_at_as_many_neurons_as_samples(key):
    key_x, *keys = jax.random.split(key, 6)
    x = gaussian(key_x, 30, 30)
    width = math.ceil(nguyen21_feature_width(Network((30, 1, 1)), x, 1, delta=0.1))
    for n, keeps in ((width, True), (30, False)):
        network = Network((30, n, 1))
        quarter = np.linalg.eigvalsh(mean_feature_gram(network, x, 1))[0] / 4
        drawn = [feature_matrices(init_params(network, key), x)[1] for key in keys]
        assert [sigma_min_squared(f) >= quarter for f in drawn] == [keeps] * 5


def test_lemma_5_2_asks_for_infinitely_many_neurons_when_a_row_is_repeated(key):
    x = gaussian(key, 8, 8)
    repeated = np.vstack([x, x[:1]])
    assert nguyen21_feature_width(Network((8, 1, 1)), repeated, 1, delta=0.1) == math.inf
    assert nguyen21_feature_width(Network((8, 1, 1)), x, 1, delta=0.1) < math.inf


def test_projecting_the_mean_out_gives_the_matrix_of_lemma_5_4():
    f = np.abs(np.random.default_rng(0).normal(size=(8, 5)))
    mean = f.mean(axis=0)
    centred, deviation = f - mean, f @ mean - mean @ mean
    expected = centred @ centred.T - np.outer(deviation, deviation) / (mean @ mean)
    projected = project_mean_out(f)
    np.testing.assert_allclose(projected @ projected.T, expected, atol=1e-12)
    np.testing.assert_allclose(projected @ mean, np.zeros(8), atol=1e-12)
    np.testing.assert_array_equal(project_mean_out([[1.0, -2.0], [-1.0, 2.0]]), [[1, -2], [-1, 2]])


@pytest.mark.parametrize("r", [1, 2, 3, 4])
def test_lemma_5_4_the_projected_powers_are_below_the_raw_ones_and_the_centred_ones_are_not(r, key):
    f = np.asarray(
        feature_matrices(init_params(Network((40, 10, 1)), key), gaussian(key, 40, 40))[1]
    )
    raw, projected = ((a @ a.T) ** r for a in (f, project_mean_out(f)))
    tolerance = 1e-12 * np.trace(raw)
    assert smallest_eigenvalue(raw - projected) > -tolerance
    centred = f - f.mean(axis=0)
    assert smallest_eigenvalue(raw - (centred @ centred.T) ** r) < -tolerance


# --- certificates against 60 digits ---------------------------------------------------------------


def test_certificates_of_the_mean_gram_hold_to_60_digits_at_any_scale_and_angle():
    n_positive = 0
    for seed in range(72):
        f = truth.hard_samples(seed)
        network = Network((f.shape[1], 7, 1), (0.5, 1.0))
        with mpmath.workdps(truth.DIGITS):
            gram = truth.limiting(f, 2)[1] * 7 * mpmath.mpf("0.125")
        exact = truth.lambda_min(gram) + truth.NEGLIGIBLE * truth.trace(gram)
        bounds = [mean_feature_gram_lower_bound(network, f, 1)]
        bounds += [nguyen21_mean_feature_gram_lower(network, f, 1, r=r) for r in (1, 2, 4)]
        for bound in bounds:
            assert 0 <= bound <= exact, seed
            n_positive += bound > 0
    assert n_positive > 30


def test_a_repeated_row_takes_both_certificates_of_the_mean_gram_to_exactly_0(key):
    x = np.asarray(gaussian(key, 5, 40))
    network = Network((40, 160, 1))
    for factor in (1.0, 3.0, -0.7):
        rows = np.vstack([x, factor * x[0]])
        assert mean_feature_gram_lower_bound(network, rows, 1) == 0
        assert nguyen21_mean_feature_gram_lower(network, rows, 1, r=2) == 0


def test_half_precision_rows_have_the_certificate_of_their_float64_copy():
    f, network = (np.eye(3) * 300 + 1).astype(np.float16), Network((3, 5, 1))
    bound = mean_feature_gram_lower_bound(network, f, 1)
    assert bound == mean_feature_gram_lower_bound(network, f.astype(np.float64), 1) > 1e4
