import functools
import math

import helpers
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings

from ntk_utils import (
    SmoothedLeakyReLU,
    apply,
    arora19_complexity,
    empirical_ntk,
    feature_matrices,
    gaussian,
    gradient_descent,
    gradient_flow,
    nguyen20_recalled_condition,
    nguyen21_convergence,
    nguyen21_scaled_start,
    spectrum,
    uniform_sphere,
    weak_pl_counterexample,
    weak_pl_factor,
    weak_pl_flow,
    weak_pl_singular_values,
    weak_pl_start,
)


def linear(u):
    """σ(u) = u, of slope 1."""
    return u


seeds = st.integers(0, 2**31 - 1)
# no shrinking: a failure would compile for minutes
often = settings(
    max_examples=40, derandomize=True, deadline=None, phases=[Phase.explicit, Phase.generate]
)


# --- the theorem with explicit constants ----------------------------------------------------------


def small_start(seed, widths):
    """Weights, samples, labels and C_l that meet the three conditions."""
    params, x = helpers.draw(widths, seed, n_samples=3)
    y = gaussian(jax.random.key(seed), 3, 1)[:, 0]
    params, y, room = nguyen21_scaled_start(params, x, y)
    return params, x, y, room


@pytest.mark.parametrize("widths", [(20, 400, 1), (40, 80, 400, 1)])
def test_the_scaled_start_meets_all_conditions_two_of_them_by_a_tenth(widths):
    params, x, y, room = small_start(0, widths)
    theorem = nguyen21_convergence(params, x, y, room)
    quotients = np.sort(theorem.right / theorem.left)
    assert theorem.holds
    np.testing.assert_allclose(quotients[1:], 0.9, rtol=1e-9)


@pytest.mark.parametrize("widths", [(20, 400, 1), (40, 80, 400, 1)])
def test_where_the_conditions_hold_every_step_is_below_the_promised_rate(widths):
    for seed in range(5):
        params, x, y, room = small_start(seed, widths)
        theorem = nguyen21_convergence(params, x, y, room)
        assert theorem.holds
        eta = 0.99 * theorem.largest_step
        run = gradient_descent(params, x, y, steps=1000, step_size=eta, tolerance=1e-300)
        promised = run.losses[0] * (1 - eta * theorem.rate) ** np.arange(1001)
        assert (run.losses <= promised * (1 + 1e-12)).all()
        # not vacuous: it promises far more than rounding, and a hundredth of what comes true
        come_true = np.log(run.losses[0] / run.losses[-1])
        assert 1e-5 < 1000 * eta * theorem.rate < come_true < 200 * 1000 * eta * theorem.rate


def test_a_step_size_beyond_stability_breaks_the_promised_rate():
    params, x, y, room = small_start(0, (20, 400, 1))
    theorem = nguyen21_convergence(params, x, y, room)
    for factor, breaks in ((1.9, False), (2.1, True)):
        eta = factor / spectrum(empirical_ntk(params, x))[-1]
        assert eta > theorem.largest_step
        v = np.linalg.eigh(empirical_ntk(params, x))[1][:, -1]
        # of labels along the largest eigenvalue, by the first step, in which only W_L moves
        run = gradient_descent(params, x, 1e-3 * v, steps=1, step_size=eta, tolerance=1e-300)
        promised = run.losses[0] * (1 - eta * theorem.rate)
        assert (run.losses[1] > promised) == breaks


def test_each_condition_is_seen_to_fail():
    params, x, y, room = small_start(0, (20, 400, 1))
    fails = lambda *case: list(np.flatnonzero(np.less(*nguyen21_convergence(*case)[:2])))  # noqa: E731
    assert fails(params, x, y, room) == []
    assert fails(params, x, 1e3 * y, room) == [0, 1]
    assert fails(params, x, y, [1e-6, room[1]]) == [0]
    assert 2 in fails((params[0], 0.1 + params[1]), x, y, room)
    narrow = nguyen21_convergence((params[0][:, :2], params[1][:2]), x, y, room)
    assert (narrow.left == 0).all()
    assert not narrow.holds
    assert narrow.rate == 0


def test_the_conditions_agree_with_the_theorem_written_out():
    params, x = helpers.draw((3, 5, 9, 1), 0, n_samples=4)
    y = np.arange(4.0)
    c = (0.3, 0.2, 0.1)
    theorem = nguyen21_convergence(params, x, y, c)
    l_1, l_2, l_3 = (np.linalg.norm(w, ord=2) + c_l for w, c_l in zip(params, c, strict=True))
    alpha = np.linalg.svd(feature_matrices(params, x)[-1])[1].min()
    of_x, start = np.linalg.norm(x), np.linalg.norm(apply(params, x) - y)
    first = max(l_2 * l_3 / c[0], l_1 * l_3 / c[1], l_1 * l_2 / c[2])
    np.testing.assert_allclose(theorem.left, [alpha**2, alpha**3, alpha**2], rtol=1e-10)
    np.testing.assert_allclose(
        theorem.right,
        [
            16 * of_x * first * start,
            32 * of_x**2 * l_3 * (l_1**2 + l_2**2) * start,
            16 * of_x**2 * l_3**2 * (l_1**2 + l_2**2),
        ],
        rtol=1e-10,
    )
    sums = l_1**-2 + l_2**-2, l_1**-2 + l_2**-2 + l_3**-2
    bound = sums[0] / (of_x * l_1 * l_2 * l_3 * sums[1]) ** 2
    assert theorem.largest_step == pytest.approx(min(bound, 8 / alpha**2))
    assert theorem.rate == pytest.approx(alpha**2 / 8)


# --- the weak Polyak–Łojasiewicz inequality -------------------------------------------------------


def gradient_in_w_2(params, x, y, activation):
    """‖∂Φ/∂W_2‖_F by automatic differentiation."""

    def loss(w_2):
        outputs = apply((params[0], w_2, *params[2:]), x, activation=activation)
        return ((outputs - y) ** 2).sum() / 2

    return float(jnp.linalg.norm(jax.grad(loss)(params[1])))


@often
@given(
    st.sampled_from([(4, 9, 1), (4, 9, 3, 1), (4, 20, 6, 3, 2, 1)]),
    st.sampled_from([(0.1, 1.0), (0.5, 0.3), (0.9, 10.0)]),
    seeds,
)
def test_the_gradient_in_the_second_matrix_is_above_the_residual_times_the_factor(
    widths, smoothing, seed
):
    activation = SmoothedLeakyReLU(*smoothing)
    params, x = helpers.draw(widths, seed, n_samples=8)
    y = np.asarray(gaussian(jax.random.key(seed), 8, 1))[:, 0]
    factor = weak_pl_factor(params, x, activation.gamma, activation=activation)
    residual = np.linalg.norm(apply(params, x, activation=activation) - y)
    gradient = gradient_in_w_2(params, x, y, activation)
    assert 0 < factor * residual <= gradient * (1 + 1e-10)


def test_the_factor_is_reached_where_every_slope_and_singular_value_is_the_smallest():
    # F_1 and the pre-activations of layer 2 far on the negative side, where the slope is γ
    activation = SmoothedLeakyReLU(0.5, 100.0)
    params = (-100 * np.eye(3), np.eye(3), np.ones((3, 1)))
    x, y = np.eye(3), np.zeros(3)
    factor = weak_pl_factor(params, x, 0.5, activation=activation)
    residual = np.linalg.norm(apply(params, x, activation=activation) - y)
    gradient = gradient_in_w_2(params, x, y, activation)
    assert factor * residual <= gradient
    assert factor * residual > 0.4 * gradient


def test_the_factor_is_0_where_the_pyramid_or_the_wide_layer_is_missing():
    of = functools.partial(weak_pl_factor, gamma=0.5, activation=SmoothedLeakyReLU())
    params, x = helpers.draw((4, 9, 3, 2, 1), 0, n_samples=8)
    assert of(params, x) > 0
    assert of(*helpers.draw((4, 7, 3, 2, 1), 0, n_samples=8)) == 0
    assert of(*helpers.draw((4, 9, 2, 3, 1), 0, n_samples=8)) == 0


def test_the_factor_of_repeated_samples_is_exactly_0():
    params, x = helpers.draw((4, 9, 3, 1), 0, n_samples=4)
    x = np.asarray(x)[[0, 1, 2, 2]]
    assert weak_pl_factor(params, x, 0.5, activation=SmoothedLeakyReLU()) == 0


def test_conditions_of_weights_of_any_size_are_computed():
    params = (1e-90 * np.eye(3), np.ones((3, 1)))
    theorem = nguyen21_convergence(params, 1e-90 * np.eye(3), np.ones(3))
    assert not theorem.holds


def test_a_slope_below_gamma_breaks_the_inequality():
    # the ReLU has the slope 0: all neurons of layer 2 are off at some sample
    params, x = (np.eye(3), -np.ones((3, 3)), np.ones((3, 1))), np.eye(3)
    y = np.ones(3)
    factor = weak_pl_factor(params, x, 0.5, activation=jax.nn.relu)
    assert gradient_in_w_2(params, x, y, jax.nn.relu) == 0
    assert factor * np.linalg.norm(y) > 0.5


@pytest.mark.parametrize("widths", [(4, 12, 3, 6, 1), (4, 12, 5, 2, 7, 1)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_without_a_pyramid_the_gradient_in_the_second_matrix_vanishes_while_the_residual_is_1(
    widths, seed
):
    activation = SmoothedLeakyReLU()
    params, x = helpers.draw(widths, seed)
    built, y = weak_pl_counterexample(params, x, activation=activation)
    assert all((a == b).all() for a, b in zip(built[:-1], params[:-1], strict=True))
    assert jnp.linalg.norm(built[-1]) == pytest.approx(1)
    residual = np.asarray(apply(built, x, activation=activation)) - y
    np.testing.assert_allclose(residual, -1.0 * (np.arange(10) == 0), atol=1e-14)
    assert gradient_in_w_2(built, x, y, activation) < 1e-13
    # at the same labels it does not vanish for another last matrix
    assert gradient_in_w_2(params, x, y, activation) > 1e-2
    # the factor says nothing, and something false if it counts fewer singular values
    assert weak_pl_factor(built, x, 0.5, activation=activation) == 0
    assert weak_pl_singular_values(built, x, activation=activation).min() > 1e-3


def test_the_singular_values_are_those_of_the_first_features_and_the_matrices_from_the_third_on():
    params = (3 * np.eye(2), 5 * np.eye(2), np.diag([4.0, 7.0]), np.array([[0.6], [0.8]]))
    found = weak_pl_singular_values(params, np.eye(2), activation=linear)
    np.testing.assert_allclose(found, [3, 4, 1], rtol=1e-14)
    # in a pyramid with a wide layer the factor is their product, but for rounding
    factor = weak_pl_factor(params, np.eye(2), 0.5, activation=linear)
    assert factor == pytest.approx(0.5**2 * 12, rel=1e-12)
    assert factor < 0.5**2 * found.prod()


# --- a condition as recalled ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "largest"), [(1.0, 8 / 3), (0.5, 2 * (4 / 3) * (8 / 3) / 1.5**2)]
)
def test_the_recalled_condition_of_a_linear_network_is_that_of_its_norms(scale, largest):
    # W_3 is a column of norm 3: λ_3 = λ̄_3 = 3, the outputs have the norm 2 · 3 · 3
    params = (np.eye(3), 3 * np.eye(3), scale * np.array([[1.0], [2.0], [2.0]]))
    condition = nguyen20_recalled_condition(
        params, 2 * np.eye(3), np.zeros(3), 0.5, activation=linear
    )
    of_x, start, quotient = 2 * math.sqrt(3), 18 * scale, 1 / (3 * scale)
    right = (0.5**4 / 3) * 24**3 * of_x * start * quotient * largest
    assert condition == pytest.approx((4.0, right))


def test_the_recalled_condition_has_a_product_and_a_minimum_over_the_matrices_behind():
    params = (np.eye(2), np.zeros((2, 2)), np.diag([4.0, 5.0]), np.array([[0.6], [0.8]]))
    y = np.array([3.0, 4.0])
    condition = nguyen20_recalled_condition(params, np.eye(2), y, 1.0, activation=linear)
    # λ_3 = 4, λ̄_3 = 5, λ_4 = λ̄_4 = 1; λ̄_1 = 4/3, λ̄_2 = 2/3
    largest = max(2 * (4 / 3) * (2 / 3) / min(4 * 5, 1), 4 / 3, 2 / 3)
    assert condition == pytest.approx((1.0, 6**4 / 3 * math.sqrt(2) * 5 * (5 / 16) * largest))


def test_the_recalled_condition_is_met_with_a_second_matrix_0_and_large_ones_behind():
    activation = SmoothedLeakyReLU()
    (w_1, w_2, *others), x = helpers.draw((8, 24, 4, 1), 0, n_samples=6)
    sides = lambda scale: nguyen20_recalled_condition(  # noqa: E731
        (w_1, 0 * w_2, *(scale * w for w in others)), x, np.ones(6), 0.5, activation=activation
    )
    (left, right), (same, smaller) = sides(1.0), sides(1e8)
    assert left == same
    assert smaller < left < right
    # far out the right side is λ̄_3/λ_3² times a constant
    assert smaller / sides(1e9)[1] == pytest.approx(10)


def test_the_recalled_condition_fails_without_a_wide_layer_and_without_a_pyramid():
    of = functools.partial(nguyen20_recalled_condition, gamma=0.5, activation=SmoothedLeakyReLU())
    assert of(*helpers.draw((4, 7, 3, 2, 1), 0, n_samples=8), np.ones(8))[0] == 0
    left, right = of(*helpers.draw((4, 9, 2, 3, 1), 0, n_samples=8), np.ones(8))
    assert left > 0
    assert right == math.inf


# --- gradient flow from the weak inequality -------------------------------------------------------


def flow_start(seed, widths, activation, scale):
    """Weights with W_2 = 0 and the others behind it scaled, samples, and labels."""
    (w_1, w_2, *others), x = helpers.draw(widths, seed, n_samples=6)
    y = np.asarray(gaussian(jax.random.key(seed), 6, 1))[:, 0]
    params = (w_1, 0 * w_2, *(scale * w for w in others))
    return params, x, y, weak_pl_flow(params, x, y, activation.gamma, activation=activation)


def test_the_start_scales_by_the_smallest_power_of_2_at_which_the_condition_holds():
    activation = SmoothedLeakyReLU()
    for seed in range(3):
        params, x, y, theorem = flow_start(seed, (8, 24, 4, 1), activation, 1.0)
        assert not theorem.holds
        start = weak_pl_start(params, x, y, 0.5, activation=activation)
        scale = float(start[2][0, 0] / params[2][0, 0])
        assert math.log2(scale) == round(math.log2(scale))
        assert flow_start(seed, (8, 24, 4, 1), activation, scale)[3].holds
        assert not flow_start(seed, (8, 24, 4, 1), activation, scale / 2)[3].holds
        np.testing.assert_array_equal(start[0], params[0])
        assert not start[1].any()


@pytest.mark.parametrize("widths", [(8, 24, 4, 1), (8, 24, 5, 3, 1)])
@pytest.mark.parametrize("smoothing", [(0.5, 1.0), (0.8, 3.0)])
def test_where_the_condition_holds_the_flow_stays_in_the_radius_and_keeps_the_rate(
    widths, smoothing
):
    activation = SmoothedLeakyReLU(*smoothing)
    for seed in range(3):
        scale = 2.0 ** next(
            i for i in range(30) if flow_start(seed, widths, activation, 2.0**i)[3].holds
        )
        params, x, y, theorem = flow_start(seed, widths, activation, scale)
        times = np.array([0, 0.01, 0.1, 1]) / theorem.rate
        flow = gradient_flow(params, x, y, times, activation=activation)
        promised = flow.losses[0] * np.exp(-theorem.rate * times)
        moved = [
            math.sqrt(sum(jnp.sum((a - b) ** 2) for a, b in zip(w, params, strict=True)))
            for w in flow.path
        ]
        assert (flow.losses <= promised * (1 + 1e-6)).all()
        # not vacuous: the radius is no more than a few hundred times what is gone
        assert moved[-1] <= theorem.radius <= 300 * moved[-1]
        assert theorem.radius * math.sqrt(theorem.rate / 2) == pytest.approx(theorem.right)


def test_the_left_side_is_the_maximum_over_a_fine_grid_of_radii():
    activation = SmoothedLeakyReLU()
    params, x, _, theorem = flow_start(0, (8, 24, 4, 1), activation, 1.0)
    features = feature_matrices(params, x, activation=activation)[1]
    sigma_f, sigma_w = (np.linalg.svd(m)[1].min() for m in (features, params[2]))
    radii = np.linspace(0, min(sigma_f / np.linalg.norm(x, 2), sigma_w), 10_001)
    products = 0.5 * radii * (sigma_f - np.linalg.norm(x, 2) * radii) * (sigma_w - radii)
    assert theorem.left == pytest.approx(products.max(), rel=1e-6)


def test_a_wide_layer_or_a_pyramid_that_is_missing_leaves_nothing_at_any_scale():
    activation = SmoothedLeakyReLU()
    for widths in [(8, 5, 4, 1), (8, 24, 3, 4, 1)]:
        for scale in (1.0, 1e6):
            theorem = flow_start(0, widths, activation, scale)[3]
            assert theorem.left == 0
            assert not theorem.holds
            assert theorem.rate == 0
            assert math.isinf(theorem.radius)


def test_a_slope_that_the_activation_does_not_have_breaks_the_promise():
    # σ' is γ = 0.1 where all is negative, and 0.9 is claimed
    activation = SmoothedLeakyReLU(0.1, 100.0)
    params = (-20 * np.eye(3), -1e-2 * np.eye(3), np.full((3, 1), 20.0))
    x, y = np.eye(3), np.zeros(3)
    y = np.asarray(apply(params, x, activation=activation)) + 1e-3
    broken, kept = (weak_pl_flow(params, x, y, g, activation=activation) for g in (0.9, 0.1))
    assert broken.holds
    assert kept.holds
    times = np.array([0, 1e-3])
    flow = gradient_flow(params, x, y, times, activation=activation)
    assert flow.losses[1] <= flow.losses[0] * math.exp(-kept.rate * times[1])
    assert flow.losses[1] > flow.losses[0] * math.exp(-broken.rate * times[1])


def test_labels_that_are_fitted_need_no_radius():
    activation = SmoothedLeakyReLU()
    params, x, _, _ = flow_start(0, (8, 24, 4, 1), activation, 1.0)
    theorem = weak_pl_flow(params, x, np.zeros(6), 0.5, activation=activation)
    assert theorem.holds
    assert theorem.radius == 0


# --- labels and the kernel ------------------------------------------------------------------------


def test_the_complexity_of_orthogonal_samples_is_that_of_half_the_identity(key):
    y = np.asarray(gaussian(key, 5, 1))[:, 0]
    # H = I/2, so √(2 · 2 ‖y‖²/N)
    assert arora19_complexity(3 * np.eye(5), y) == pytest.approx(2 * math.sqrt(y @ y / 5))


def test_one_sample_has_a_complexity():
    assert arora19_complexity([[2.0]], [3.0]) == pytest.approx(6.0)  # H = 1/2


def test_the_complexity_is_the_quadratic_form_of_the_kernel_by_its_formula(key):
    x = np.asarray(uniform_sphere(key, 12, 4))
    y = np.asarray(gaussian(jax.random.key(1), 12, 1))[:, 0]
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    c = np.clip(u @ u.T, -1, 1)
    h = c * (np.pi - np.arccos(c)) / (2 * np.pi)
    expected = math.sqrt(2 * y @ np.linalg.inv(h) @ y / 12)
    assert arora19_complexity(x, y) == pytest.approx(expected, rel=1e-6)
    assert arora19_complexity(7 * x, y) == pytest.approx(expected, rel=1e-6)
    assert arora19_complexity(x, 3 * y) == pytest.approx(3 * expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_labels_that_a_linear_function_gives_are_simpler_than_random_signs(seed):
    key_x, key_y = jax.random.split(jax.random.key(seed))
    x = np.asarray(uniform_sphere(key_x, 200, 10))
    linear = x[:, 0] / np.sqrt(np.mean(x[:, 0] ** 2))
    random = np.sign(np.asarray(gaussian(key_y, 200, 1)))[:, 0]
    assert 2 * arora19_complexity(x, linear) < arora19_complexity(x, random)
