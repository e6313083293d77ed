import itertools
import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import truth
from helpers import draw

from ntk_utils import (
    Network,
    ascend_jacobian_norms,
    feature_jacobian_norms_squared,
    feature_matrices,
    gaussian,
    lipschitz_product_squared,
    nguyen21_lipschitz_squared_upper,
)


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


@pytest.mark.parametrize("size", [1e-70, 1.0, 1e70])
def test_the_product_of_squared_norms_is_not_below_its_value_to_60_digits(size):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        widths = [*rng.integers(1, 7, size=3), 1]
        params = [size * rng.normal(size=shape) for shape in itertools.pairwise(widths)]
        exact = mpmath.mpf(1)
        for k in (1, 2):
            exact *= truth.spectral_norm(params[k - 1]) ** 2
            upper = lipschitz_product_squared(params, k)
            assert exact <= upper <= exact * (1 + 1e-9)


def test_a_product_of_squared_norms_beyond_the_largest_number_is_infinite():
    params = (np.full((2, 3), 1e200), np.ones((3, 1)))
    assert lipschitz_product_squared(params, 1) == math.inf
