import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import truth
from helpers import SMOOTH, draw

from ntk_utils import (
    Network,
    apply,
    as_stax,
    backward_matrices,
    diagonal_upper_bound,
    empirical_ntk,
    feature_matrices,
    gaussian,
    hermite_coefficient,
    init_params,
    kernel_diagonal_deviation,
    layer_ntks,
    layer_shares,
    limiting_layer_shares,
    limiting_ntk,
    mean_dead_samples,
    mean_kernel_diagonal,
    mean_layer_diagonals,
    networks,
    nguyen21_lambda_min_lower,
    nguyen21_lambda_min_upper,
    rounding_error,
    sandwich,
    schur_lower_bound,
    schur_terms,
    smallest_eigenvalue,
    sweep,
    two_layer_gap_coefficients,
    uniform_sphere,
)

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
    np.testing.assert_allclose(schur_terms((w_1, w_2), x), expected, rtol=1e-9)


@pytest.mark.parametrize("d", [4, 9])
def test_schur_bound_is_exact_for_the_linear_model_of_as_many_dimensions_as_samples(d, key):
    x = gaussian(key, 4, d)
    params = init_params(Network((d, 1)), key)
    lambda_min = smallest_eigenvalue(x @ x.T)
    assert lambda_min > 0
    assert schur_lower_bound(params, x) == pytest.approx(lambda_min, rel=1e-9)


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


# --- both certificates and the eigenvalue in one pass ---------------------------------------------


@pytest.mark.parametrize("by_xla", [False, True], ids=["in NumPy", "compiled"])
@pytest.mark.parametrize(
    ("n_samples", "widths"),
    [
        (12, (8, 30, 12, 1)),
        (520, (30, 700, 20, 1)),  # compiled, by tiles
        (620, (1000, 1)),
        (130, (30, 33000, 20, 1)),  # a layer in chunks
    ],
)
def test_the_sandwich_is_made_of_the_two_bounds_and_the_smallest_eigenvalue(
    n_samples, widths, by_xla, monkeypatch
):
    if by_xla:
        monkeypatch.setattr(networks, "_in_numpy", lambda *_: False)
    params, x = draw(widths, 0, n_samples)
    lower, lambda_min, upper, rounding, feature_factors, gradient_factors = sandwich(params, x)
    k = empirical_ntk(params, x)
    size = 1e-12 * float(np.diagonal(k).max())
    assert abs(lambda_min - smallest_eigenvalue(k)) < size
    assert upper == pytest.approx(diagonal_upper_bound(k), rel=1e-9)
    assert rounding == pytest.approx(rounding_error(k), rel=1e-12)
    assert abs(lower - schur_lower_bound(params, x)) < size
    terms = feature_factors * gradient_factors
    assert lower == pytest.approx(terms.sum(), rel=1e-14)
    np.testing.assert_allclose(terms, schur_terms(params, x), rtol=1e-9)
    assert 0 < lower <= lambda_min + size
    assert 1e3 * size < lambda_min < upper


@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_smooth_activations_have_the_same_certificates(activation, seed, size):
    params, x = draw((12, 9, 40, 1), seed)
    x = size * x  # K̄ is not homogeneous in x
    k = empirical_ntk(params, x, activation=activation)
    f = feature_matrices(params, x, activation=activation)
    b = backward_matrices(params, x, activation=activation)
    found = sandwich(params, x, activation=activation)
    assert found.lambda_min == pytest.approx(smallest_eigenvalue(k), rel=1e-9)
    assert found.upper == pytest.approx(np.diagonal(k).min(), rel=1e-8)
    assert found.lower <= found.lambda_min <= found.upper
    assert found.lower > 1e-4 * found.lambda_min
    for k_of_layer in (0, 2):
        gram = np.asarray(f[k_of_layer] @ f[k_of_layer].T)
        rows = (np.asarray(b[k_of_layer]) ** 2).sum(axis=1)
        allowed = {"rel": 1e-6, "abs": 1e-12 * np.trace(gram)}
        assert found.feature_factors[k_of_layer] == pytest.approx(
            smallest_eigenvalue(gram), **allowed
        )
        assert found.gradient_factors[k_of_layer] == pytest.approx(rows.min(), rel=1e-9)
    np.testing.assert_allclose(
        schur_terms(params, x, activation=activation),
        found.feature_factors * found.gradient_factors,
        rtol=1e-9,
    )
    assert schur_lower_bound(params, x, activation=activation) == pytest.approx(found.lower)
    terms = np.asarray(layer_ntks(params, x, activation=activation))
    v = np.linalg.eigh(k)[1][:, 0]
    shares = layer_shares(params, x, activation=activation)
    np.testing.assert_allclose(shares, [v @ t @ v / found.lambda_min for t in terms], rtol=1e-6)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_factors_are_the_smallest_gram_eigenvalues_and_the_smallest_squared_rows(seed):
    params, x = draw((12, 9, 40, 30, 1), seed)
    found = sandwich(params, x)
    f = [np.asarray(f_k) for f_k in feature_matrices(params, x)]
    of_features = [np.linalg.eigvalsh(f_k @ f_k.T)[0] for f_k in f]
    of_features[1] = 0  # 9 neurons, 10 samples
    of_rows = [(np.asarray(b) ** 2).sum(axis=1).min() for b in backward_matrices(params, x)]
    np.testing.assert_allclose(found.feature_factors, of_features, rtol=1e-9, atol=1e-13)
    assert found.feature_factors[2] > 1e-3
    np.testing.assert_allclose(found.gradient_factors, of_rows, rtol=1e-9)
    assert found.feature_factors[1] == 0
    assert found.gradient_factors[-1] == 1


@pytest.mark.parametrize("widths", [*SHARPNESS, (4, 5, 30, 5, 1), (12, 1)])
def test_the_sandwich_is_in_order_on_every_draw(widths):
    for seed in range(30):
        found = sandwich(*draw(widths, seed))
        assert 0 <= found.lower <= found.lambda_min + found.rounding
        assert found.lambda_min <= found.upper + found.rounding
        assert found.rounding > 0


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("n_samples", [10, 500])
def test_a_repeated_point_takes_the_sandwich_to_zero_up_to_rounding(n_samples, seed):
    params, x = draw((12, 700, 20, 1), seed, n_samples)
    found, broken = sandwich(params, x), sandwich(params, x.at[7].set(x[3]))
    assert found.lower > 1e3 * found.rounding
    assert 0 <= broken.lower < broken.rounding
    assert abs(broken.lambda_min) < broken.rounding
    assert broken.upper > 1e3 * broken.rounding


def test_a_sweep_takes_a_sandwich_as_columns(key):
    x = gaussian(key, 10, 12)

    def measure(n, key):
        return sandwich(init_params(Network((12, n, 1)), key), x)

    table = sweep(measure, {"n": [20, 40]}, [0, 1], progress=False)
    assert list(table) == [
        "n",
        "seed",
        "lower",
        "lambda_min",
        "upper",
        "rounding",
        "feature_factors_0",
        "feature_factors_1",
        "gradient_factors_0",
        "gradient_factors_1",
    ]
    terms = table.feature_factors_0 * table.gradient_factors_0 + table.feature_factors_1
    np.testing.assert_allclose(table.lower, terms, rtol=1e-9)
    assert (table.gradient_factors_1 == 1).all()
    assert (table.lower < table.lambda_min).all()
    assert (table.lambda_min < table.upper).all()


# --- which layer carries the eigenvalue -----------------------------------------------------------


@pytest.mark.parametrize("widths", [(12, 30, 1), (5, 40, 8, 1), (20, 20, 320, 6, 1)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_layer_shares_are_the_rayleigh_quotients_of_the_terms_at_the_smallest_eigenvector(
    widths, seed
):
    params, x = draw(widths, seed)
    terms = np.asarray(layer_ntks(params, x))
    eigenvalues, vectors = np.linalg.eigh(terms.sum(axis=0))
    expected = [vectors[:, 0] @ term @ vectors[:, 0] / eigenvalues[0] for term in terms]
    shares = layer_shares(params, x)
    assert shares.shape == (len(widths) - 1,)
    np.testing.assert_allclose(shares, expected, rtol=1e-7, atol=1e-9)
    assert (shares > -1e-9).all()
    assert shares.sum() == pytest.approx(1, rel=1e-9)
    assert (shares < 1).all()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_share_of_lambda_min_is_at_least_that_of_its_schur_term(seed):
    params, x = draw((12, 24, 18, 30, 1), seed)
    lambda_min = smallest_eigenvalue(empirical_ntk(params, x))
    assert (layer_shares(params, x) * lambda_min >= schur_terms(params, x) * (1 - 1e-9)).all()


def test_the_only_layer_of_the_linear_model_has_the_whole_share(key):
    x = gaussian(key, 4, 9)
    assert layer_shares(init_params(Network((9, 1)), key), x) == pytest.approx([1], rel=1e-12)


def test_scaling_one_weight_matrix_takes_the_share_away_from_its_own_layer():
    params, x = draw((12, 30, 25, 1), 0)
    for layer in range(3):
        scaled = [1e3 * w if k == layer else w for k, w in enumerate(params)]
        shares = layer_shares(scaled, x)  # the other terms are 10^6 times as large
        assert 0 < shares[layer] < 1e-3
        assert np.delete(shares, layer).min() > 1e-3


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_singular_kernel_has_no_shares(seed):
    params, x = draw((12, 30, 5, 1), seed)
    assert np.isnan(layer_shares(params, x.at[7].set(2 * x[3]))).all()
    assert np.isnan(layer_shares(*draw((2, 2, 1), seed))).all()  # 6 weights, 10 samples
    assert np.isnan(layer_shares(*draw((4, 1), seed))).all()


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


# --- dead samples ---------------------------------------------------------------------------------


def test_one_neuron_kills_exactly_one_of_two_opposite_samples(key):
    network, x = Network((3, 1, 4, 1)), gaussian(key, 1, 3)
    pair = np.concatenate([x, -x])
    for k in jax.random.split(key, 5):
        first_layer = np.asarray(feature_matrices(init_params(network, k), pair)[1])
        assert (first_layer == 0).sum() == 1
    assert mean_dead_samples(Network((3, 1, 1)), 2) == 1.0
    assert mean_dead_samples(network, 2) == 1 + 1 / 16  # the other one dies in the second layer


def test_no_sample_is_dead_without_hidden_layers_or_with_very_wide_ones():
    assert mean_dead_samples(Network((3, 1)), 50) == 0.0
    assert mean_dead_samples(Network((3, 2000, 1)), 50) == 0.0
    # not a rounding error of 1 - (1 - 2^-60)
    assert mean_dead_samples(Network((3, 60, 1)), 1) == 0.5**60


@pytest.mark.parametrize("hidden", [(2, 3), (1, 9, 2)])
def test_measured_number_of_dead_samples_has_the_exact_mean(hidden, key):
    widths, x = (20, *hidden, 1), gaussian(key, 10, 20)

    def count(key):
        shapes = list(itertools.pairwise(widths))
        keys = jax.random.split(key, len(shapes))
        return (apply(list(map(jax.random.normal, keys, shapes)), x) == 0).sum()

    counts = np.asarray(jax.vmap(count)(jax.random.split(key, 2000)))
    standard_error = np.std(counts) / math.sqrt(len(counts))
    assert abs(np.mean(counts) - mean_dead_samples(Network(widths), 10)) < 4 * standard_error
    one_neuron_less = Network((*widths[:-2], hidden[-1] - 1, 1))
    assert abs(np.mean(counts) - mean_dead_samples(one_neuron_less, 10)) > 4 * standard_error


def test_a_dead_sample_has_a_zero_row_in_the_kernel_and_the_smallest_eigenvalue_vanishes():
    n_dead = 0
    for seed in range(20):
        params, x = draw((5, 3, 40, 3, 1), seed)
        dead = np.asarray(apply(params, x)) == 0
        k = np.asarray(empirical_ntk(params, x))
        assert (dead == (np.diagonal(k) == 0)).all()
        assert (k[dead] == 0).all()
        assert not dead.any() or abs(smallest_eigenvalue(k)) <= rounding_error(k)
        n_dead += dead.sum()
    assert n_dead > 5


# --- what a draw makes of the limit: exact on the diagonal, to second order at the lower end ------


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        ((3, 1), 0.0),
        ((5, 7, 1), math.sqrt(3 / 7)),
        ((64, 16, 32, 1), math.sqrt(29 / 16 + 29 / 32 + 113 / 512) / 3),
        ((2, 1, 1, 1), math.sqrt(29 + 29 + 113) / 3),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_deviation_of_the_diagonal_has_its_closed_form_up_to_depth_three(widths, expected, scale):
    network = Network(widths, init=(scale,) * (len(widths) - 1))
    assert kernel_diagonal_deviation(network) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("widths", "betas"),
    [((3, 2, 1), (1, 3)), ((3, 4, 6, 1), (2, 1, 0.5)), ((3, 12, 10, 14, 1), (0.2, 3, 3, 1))],
)
def test_measured_deviation_of_the_diagonal_is_the_exact_one(widths, betas, key):
    network, shapes = Network(widths, betas), list(itertools.pairwise(widths))
    x = gaussian(key, 1, widths[0])

    def diagonal(key):
        keys = jax.random.split(key, len(shapes))
        normals = map(jax.random.normal, keys, shapes)
        params = [beta * w for beta, w in zip(betas, normals, strict=True)]
        return empirical_ntk(params, x)[0, 0] / mean_kernel_diagonal(network, x)[0]

    ratios = np.asarray(jax.vmap(diagonal)(jax.random.split(key, 20000)))
    squares = (ratios - 1) ** 2
    standard_error = np.std(squares) / math.sqrt(len(squares))
    exact = kernel_diagonal_deviation(network) ** 2
    assert abs(np.mean(squares) - exact) < 4 * standard_error
    equal_betas = kernel_diagonal_deviation(Network(widths, (1.0,) * len(betas))) ** 2
    assert abs(np.mean(squares) - equal_betas) > 4 * standard_error


@pytest.mark.parametrize("depth", [2, 5, 20, 100])
def test_deviation_of_the_diagonal_stays_below_that_of_a_single_layer_term(depth):
    deviation = kernel_diagonal_deviation(Network((9, *[40] * (depth - 1), 1), (1.0,) * depth))
    assert 0.3 * (depth - 1) < np.log1p(deviation**2) / np.log1p(5 / 40) < depth - 1


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_shares_of_wide_networks_are_those_of_the_limit(depth, key):
    x = uniform_sphere(key, 8, 9)
    limit = limiting_layer_shares(x, depth=depth)
    assert limit.shape == (depth,)
    assert limit.sum() == pytest.approx(1, rel=1e-9)
    network = Network((9, *[1500] * (depth - 1), 1), (1.0,) * depth)
    keys = jax.random.split(key, 4)
    shares = np.mean([layer_shares(init_params(network, k), x) for k in keys], axis=0)
    np.testing.assert_allclose(shares, limit, atol=0.05)


def test_a_singular_limit_has_no_shares(key):
    assert np.isnan(limiting_layer_shares(gaussian(key, 6, 4), depth=1)).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_predicted_gap_of_two_layers_is_the_measured_one_and_neither_term_alone(seed):
    x = uniform_sphere(jax.random.key(seed), 20, 64)
    found, n = two_layer_gap_coefficients(x, jax.random.key(7)), 100
    assert found.n_0 < n
    limit = smallest_eigenvalue(limiting_ntk(x, depth=2))
    keys = jax.random.split(jax.random.key(seed), 400)
    network = Network((64, n, 1), (1.0, 1.0))
    draws = [2 / n * empirical_ntk(init_params(network, k), x) for k in keys]
    measured = np.mean([(smallest_eigenvalue(k) / limit - 1) ** 2 for k in draws])
    fluctuation, push = found.a / n, found.b * (20 / n) ** 2
    assert measured == pytest.approx(fluctuation + push, rel=0.2)
    assert measured > 1.3 * max(fluctuation, push)


# --- certificates against exact arithmetic --------------------------------------------------------

KINDS = ("generic", "generic", "repeated", "parallel", "antipodal", "rank 1")


def integers(seed):
    """Integer weights of two or three layers, and integer samples, often singular ones."""
    rng = np.random.default_rng(seed)
    n_samples, d = rng.integers(2, 7), rng.integers(1, 5)
    widths = [d, *rng.integers(1, 13, size=1 + seed % 2), 1]
    params = [rng.integers(-9, 10, size=shape) * 1.0 for shape in itertools.pairwise(widths)]
    size = 10 if seed % 7 else 1000
    x = rng.integers(-size, size, size=(n_samples, d))
    kind = KINDS[seed % len(KINDS)]
    if kind == "rank 1":
        x = rng.integers(-size, size, size=(n_samples, 1)) * x[:1]
    elif kind != "generic":
        x[-1] = x[0] * {"repeated": 1, "parallel": 7, "antipodal": -1}[kind]
    return params, x * 1.0


def schur_without_margins(params, x):
    """The sum as it is written in the docstring, and the diagonal bound."""
    f, b = (map(np.asarray, of(params, x)) for of in (feature_matrices, backward_matrices))
    total = sum(
        max(np.linalg.eigvalsh(f_k @ f_k.T)[0], 0) * float((b_k**2).sum(axis=1).min())
        for f_k, b_k in zip(f, b, strict=True)
        if f_k.shape[1] >= len(x)
    )
    return total, diagonal_upper_bound(empirical_ntk(params, x))


def test_a_thousand_exact_kernels_of_integers_lie_between_their_certificates():
    n_positive = n_singular = 0
    for seed in range(1000):
        params, x = integers(seed)
        k = truth.exact_ntk(params, x)
        found = sandwich(params, x)
        assert truth.is_at_most_lambda_min(found.lower, k), seed
        assert truth.is_at_least_lambda_min(found.upper, k), seed
        assert truth.is_at_most_lambda_min(schur_lower_bound(params, x), k), seed
        is_singular = not truth.is_positive(k, definite=True)
        n_singular += is_singular
        assert found.lower == 0 or not is_singular, seed
        if found.lower > 0:
            n_positive += 1
            lower, upper = schur_without_margins(params, x)
            assert lower - 1e-9 * upper <= found.lower <= lower * (1 + 1e-14), seed
            assert upper <= found.upper <= upper * (1 + 1e-9)
    assert n_positive > 200
    assert n_singular > 500


def test_rank_1_samples_have_a_schur_bound_of_0_where_its_rounding_had_been_positive():
    params = (np.array([[7.0, 7, 6, 7]]), np.array([[8.0], [2], [7], [5]]))
    x = np.array([[1.0], [2], [1000]])
    assert not truth.is_positive(truth.exact_ntk(params, x), definite=True)
    assert schur_lower_bound(params, x) == sandwich(params, x).lower == 0


@pytest.mark.parametrize("exponent", [-500, -1, 1, 500])
def test_the_sandwich_of_samples_of_any_size_is_that_of_size_1_times_its_square(exponent):
    params, x = draw((12, 30, 1), 0)
    found, scaled = sandwich(params, x), sandwich(params, np.ldexp(x, exponent))
    size = 2.0 ** (2 * exponent)
    for name in ("lower", "lambda_min", "upper", "rounding"):
        assert getattr(scaled, name) == getattr(found, name) * size, name
    np.testing.assert_array_equal(scaled.feature_factors, found.feature_factors * size)
    np.testing.assert_array_equal(scaled.gradient_factors, found.gradient_factors)
    assert found.lower > 0


@pytest.mark.parametrize("exponent", [-1000, -3, 900])
def test_the_shares_of_the_layers_are_the_same_at_any_size_of_the_samples(exponent):
    params, x = draw((12, 30, 20, 1), 0)
    for shares in (
        lambda x: layer_shares(params, x),
        lambda x: limiting_layer_shares(x, depth=3),
    ):
        np.testing.assert_array_equal(shares(np.ldexp(x, exponent)), shares(x))


def test_the_upper_rate_of_a_hundred_wide_layers_is_a_number():
    network = Network((1000,) * 105 + (1,))
    assert nguyen21_lambda_min_upper(network) == pytest.approx(105_000, rel=1e-12)


def test_mean_diagonals_of_bfloat16_samples_are_those_of_their_float64_copy():
    network = Network((400, 50, 1))
    x = np.asarray(gaussian(jax.random.key(0), 20, 400)).astype(jnp.bfloat16)
    mean = mean_kernel_diagonal(network, x)
    np.testing.assert_array_equal(mean, mean_kernel_diagonal(network, x.astype(np.float64)))
