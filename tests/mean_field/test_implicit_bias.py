"""Univariate ReLU networks with weight decay: training, knots, the convex problem, the limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import sklearn.linear_model

from ntk_utils.mean_field import implicit_bias as ib

X = np.array([-1.4, -0.6, 0.1, 0.7, 1.5])
Y = np.array([0.5, -0.4, 0.8, 0.1, -1.0])
TWO = np.array([-10.0, 10.0]), np.array([2.0, 2.0])


def neurons(seed, n=40):
    return np.asarray(jax.random.normal(jax.random.key(seed), (n, 3)))


def residuals(theta, x, y):
    return (ib.outputs(theta, x) - y) / len(x)


def q_of(r, x, ridge, angles):
    """q(φ) by its definition."""
    return r @ np.maximum(np.outer(x, np.cos(angles)) + np.sin(angles), 0) / ridge


# --- outputs, objective, training -----------------------------------------------------------------


def test_outputs_and_objective_of_two_neurons_are_those_by_hand():
    theta = np.array([[2.0, 1.0, -1.0], [1.0, -3.0, 0.0]])
    np.testing.assert_allclose(ib.outputs(theta, [3.0, -1.0, 0.5]), [2.0, 1.5, 0.0])
    np.testing.assert_allclose(ib.slopes(theta, [3.0, -1.0, 0.5]), [1.0, -1.5, 0.0])
    value = ib.objective(theta, [-1.0, 3.0], [0.5, 2.0], ridge=0.1)
    assert value == pytest.approx(1 / 4 + 0.05 * (4 + 1 + 1 + 1 + 9) / 2)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_step_follows_the_gradient_that_autodiff_finds_of_n_times_the_objective(seed):
    theta = neurons(seed)

    def n_times_f(theta):
        a, w, b = theta.T
        f = a @ jax.nn.relu(jnp.outer(w, X) + b[:, None]) / len(a)
        return len(a) * (jnp.mean((f - Y) ** 2) / 2 + 0.3 / 2 * jnp.sum(theta**2) / len(a))

    assert n_times_f(theta) == pytest.approx(40 * ib.objective(theta, X, Y, ridge=0.3), rel=1e-12)
    run = ib.train(theta, X, Y, ridge=0.3, step_size=0.01, steps=1)
    expected = theta - 0.01 * np.asarray(jax.grad(n_times_f)(theta))
    np.testing.assert_allclose(run.theta, expected, rtol=1e-12, atol=1e-14)


def test_training_in_parts_is_training_at_once_and_outputs_are_those_before_each_step():
    options = {"ridge": 0.1, "step_size": 0.05}
    run = ib.train(neurons(0), X, Y, steps=5003, **options)  # more than one compiled call
    part = ib.train(neurons(0), X, Y, steps=17, **options)
    rest = ib.train(part.theta, X, Y, steps=4986, **options)
    np.testing.assert_allclose(rest.theta, run.theta, rtol=1e-9, atol=1e-12)
    assert run.outputs.shape == (5003, 5)
    np.testing.assert_allclose(run.outputs[17], ib.outputs(part.theta, X), rtol=1e-12)


def test_the_imbalance_of_each_neuron_decays_at_the_rate_2_lambda_to_first_order_in_the_step():
    def imbalance(theta):
        return theta[:, 0] ** 2 - theta[:, 1] ** 2 - theta[:, 2] ** 2

    errors = []
    for n in (500, 1000):  # the same time 1
        end = ib.train(neurons(1), X, Y, ridge=0.4, step_size=1 / n, steps=n).theta
        errors.append(abs(imbalance(end) - np.exp(-0.8) * imbalance(neurons(1))).max())
    assert errors[1] < 0.01
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)


def test_without_labels_and_decay_noise_is_a_random_walk_of_variance_2_eta_t_a_step():
    start = np.zeros((20_000, 3))  # no neuron is active, so that nothing pulls
    options = {"ridge": 0.0, "step_size": 0.01, "temperature": 0.5}
    end = ib.train(start, X, 0 * Y, steps=1, key=jax.random.key(0), **options).theta
    np.testing.assert_allclose(np.var(end, axis=0), 0.01, rtol=0.05)
    np.testing.assert_allclose(np.mean(end, axis=0), 0, atol=4e-3)
    again = ib.train(start, X, 0 * Y, steps=1, key=jax.random.key(1), **options).theta
    assert abs(np.corrcoef(end.ravel(), again.ravel())[0, 1]) < 0.03


def test_too_large_a_step_ends_with_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"step_size: expected .* stable, got 5: .* overflowed"):
        ib.train(neurons(0), *TWO, ridge=0.1, step_size=5.0, steps=10_000)


# --- knots ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_known_knots_are_found_although_noise_moves_neurons_and_adds_light_ones(seed):
    rng = np.random.default_rng(seed)
    at, changes = np.array([-0.7, 0.2, 0.25, 1.1]), np.array([1.0, -2.0, 0.5, 3.0])
    t = np.repeat(at, 25) + rng.uniform(-0.009, 0.009, 100)
    w = rng.choice([-1, 1], 100) * rng.uniform(0.5, 2, 100)
    a = 100 * np.repeat(changes, 25) / 25 / abs(w)
    heavy, light = np.stack([a, w, -w * t], axis=1), 1e-4 * neurons(seed, 100)
    theta = rng.permutation(np.vstack([heavy, light])) * [2, 1, 1]  # now 200 neurons
    found = ib.knots(theta, width=0.02)
    np.testing.assert_allclose(found.positions, at, atol=0.01)
    np.testing.assert_allclose(found.slope_changes, changes, rtol=0.01)
    assert len(ib.knots(theta, width=0.2).positions) == 3


def test_evenly_spread_neurons_are_not_one_knot():
    t = np.linspace(0, 1, 101)
    theta = np.stack([np.ones(101), np.ones(101), -t], axis=1)
    assert len(ib.knots(theta, width=0.095, share=0.0).positions) == 11  # of ten neurons each


def test_the_slope_changes_by_the_slope_changes_of_the_knots():
    theta = neurons(3, 6)
    found = ib.knots(theta, width=1e-9, share=0.0)
    middles = (found.positions[1:] + found.positions[:-1]) / 2
    ends = np.concatenate([[found.positions[0] - 1], middles, [found.positions[-1] + 1]])
    np.testing.assert_allclose(np.diff(ib.slopes(theta, ends)), found.slope_changes, rtol=1e-9)


def test_the_path_norm_is_half_the_square_norm_if_and_only_if_neurons_are_balanced():
    theta = neurons(0).copy()
    assert ib.path_norm(theta) < (theta**2).sum() / 80
    theta[:, 0] *= np.linalg.norm(theta[:, 1:], axis=1) / abs(theta[:, 0])
    assert ib.path_norm(theta) == pytest.approx((theta**2).sum() / 80, rel=1e-12)
    t, m = -theta[:, 2] / theta[:, 1], theta[:, 0] * abs(theta[:, 1]) / 40
    assert ib.path_norm(theta) == pytest.approx(abs(m) @ np.sqrt(1 + t**2), rel=1e-12)


# --- the polynomial -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_polynomial_is_one_minus_q_squared_at_both_angles_of_a_knot(seed):
    r = residuals(neurons(seed), X, Y)
    t = np.linspace(-3, 3, 101)
    found = ib.curvature_polynomial(X, r, t, ridge=0.2)
    for values, angles in zip(found, (np.arctan(-t), np.arctan(-t) + np.pi), strict=True):
        expected = (1 + t**2) * (1 - q_of(r, X, 0.2, angles) ** 2)
        np.testing.assert_allclose(values, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_the_largest_q_is_that_of_a_fine_grid(seed):
    r = residuals(neurons(seed), X, 4 * neurons(seed + 50)[:5, 0])
    on_grid = abs(q_of(r, X, 0.2, np.linspace(0, 2 * np.pi, 1_000_001))).max()
    found = ib.largest_q(X, r, ridge=0.2)
    assert on_grid <= found * (1 + 1e-12)
    assert found == pytest.approx(on_grid, rel=1e-5)


def test_the_largest_q_can_be_that_of_neurons_without_a_knot():
    assert ib.largest_q([-1.0, 1.0], [0.3, 0.3], ridge=0.1) == pytest.approx(6, rel=1e-12)


def test_the_coefficients_of_neurons_are_theirs_in_the_interval_of_their_knot():
    a = np.array([1.0, 2.0, -1.0, -3.0])
    theta = np.stack([a, 0.5 * a, 0.3 * a], axis=1)  # all with their knot at -0.6
    found = ib.coefficients_of_neurons(theta, [-1.0, 0.0, 1.0])
    for values, expected in zip(found, (0.3, 0.5), strict=True):
        np.testing.assert_allclose(values[:, 1], expected, rtol=1e-12)
        assert np.isnan(values[:, [0, 2, 3]]).all()


def test_slackness_is_the_mean_of_one_minus_q_squared_by_cost():
    theta, r = neurons(0), residuals(neurons(0), X, Y)
    angles = np.arctan2(theta[:, 2], theta[:, 1])
    costs = abs(theta[:, 0]) * np.hypot(theta[:, 1], theta[:, 2])
    expected = np.average(1 - q_of(r, X, 0.2, angles) ** 2, weights=costs)
    assert ib.slackness(theta, X, r, ridge=0.2) == pytest.approx(expected, rel=1e-10)


# --- the convex problem ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_the_bound_is_below_every_network_and_met_by_the_convex_minimum(seed):
    rng = np.random.default_rng(seed)
    x, y, ridge = np.sort(rng.uniform(-2, 2, 5)), rng.normal(size=5), 10 ** rng.uniform(-3, -1)
    best = ib.convex_minimum(x, y, ridge=ridge)
    least = ib.objective(best, x, y, ridge=ridge)
    met = ib.lower_bound(x, y, residuals(best, x, y), ridge=ridge)
    assert met <= least * (1 + 1e-12)
    assert met == pytest.approx(least, rel=1e-5)
    for theta in (neurons(seed), best * 1.01, neurons(seed, 3)):
        for r in (residuals(neurons(seed), x, y), residuals(theta, x, y), -y / 7):
            bound = ib.lower_bound(x, y, r, ridge=ridge)
            assert bound <= min(ib.objective(theta, x, y, ridge=ridge), least)


def test_the_convex_minimum_is_the_one_of_coordinate_descent_on_the_same_grid():
    grid = np.arange(200) * 2 * np.pi / 200
    grid = np.concatenate([grid, np.arctan(-X), np.arctan(-X) + np.pi])
    features = np.maximum(np.outer(X, np.cos(grid)) + np.sin(grid), 0)
    lasso = sklearn.linear_model.Lasso(
        alpha=0.05, fit_intercept=False, tol=1e-8, max_iter=1_000_000
    ).fit(features, Y)
    expected = np.mean((features @ lasso.coef_ - Y) ** 2) / 2 + 0.05 * abs(lasso.coef_).sum()
    theta = ib.convex_minimum(X, Y, ridge=0.05, directions=200)
    assert ib.objective(theta, X, Y, ridge=0.05) == pytest.approx(expected, rel=1e-6)
    assert len(theta) <= 2 * len(X)
    assert ib.path_norm(theta) == pytest.approx((theta**2).sum() / 2 / len(theta), rel=1e-12)


def test_two_samples_give_knots_at_one_over_x_and_nothing_from_half_y_root_one_plus_x_squared_on():
    found = ib.knots(ib.convex_minimum(*TWO, ridge=0.1), width=0.01)
    weight = (2 - 0.2 / np.sqrt(101)) / np.sqrt(101)
    np.testing.assert_allclose(found.positions, [-0.1, 0.1], atol=3e-4)
    np.testing.assert_allclose(found.slope_changes, 10 * weight / np.sqrt(101), rtol=1e-4)
    assert not ib.convex_minimum(*TWO, ridge=1.0001 * np.sqrt(101)).any()
    assert ib.convex_minimum(*TWO, ridge=0.9999 * np.sqrt(101)).any()


def test_training_ends_at_the_convex_minimum_with_coefficients_that_neurons_and_residuals_share():
    x = np.linspace(-1.5, 1.5, 5)
    run = ib.train(neurons(0, 200), x, x**2, ridge=0.01, step_size=0.05, steps=60_000)
    best = ib.convex_minimum(x, x**2, ridge=0.01)
    least = ib.objective(best, x, x**2, ridge=0.01)
    assert ib.objective(run.theta, x, x**2, ridge=0.01) == pytest.approx(least, rel=1e-6)
    np.testing.assert_allclose(
        ib.knots(run.theta, width=0.02).positions, ib.knots(best, width=0.02).positions, atol=1e-3
    )
    r = residuals(run.theta, x, x**2)
    pairs = zip(
        ib.coefficients(x, r, ridge=0.01), ib.coefficients_of_neurons(run.theta, x), strict=True
    )
    for by_residuals, by_neurons in pairs:
        assert np.isfinite(by_neurons).sum() == 2
        at = np.isfinite(by_neurons)
        np.testing.assert_allclose(by_neurons[at], by_residuals[at], atol=1e-4)


# --- the limit ------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
def test_the_limit_is_a_fixed_point_of_the_law_of_gibbs_integrated_in_three_dimensions(temperature):
    law = ib.mean_field_limit(X, Y, ridge=0.5, temperature=temperature)
    scale = np.sqrt(temperature / 0.5)
    # Gauss-Hermite in (a, w, b) of exp(-Ψ/T): a is integrated exactly, (w, b) in polar coordinates
    angles = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    q = q_of(law.residuals, X, 0.5, angles)
    radius = np.linspace(0, 60, 20_001)[1:]  # in units of the scale
    outputs, z = np.zeros(len(X)), 0.0
    for phi, value in zip(angles, q, strict=True):
        density = radius * np.exp(-(radius**2) * (1 - value**2) / 2)
        z += density.sum()
        mean_a = -radius * value  # of a given (w, b), in units of the scale
        feature = np.maximum(X * np.cos(phi) + np.sin(phi), 0)
        outputs += (density * mean_a * radius).sum() * feature * scale**2
    np.testing.assert_allclose(outputs / z, Y + len(X) * law.residuals, rtol=1e-4, atol=1e-4)


def test_the_limit_has_shares_of_sum_one_and_the_outputs_of_its_neurons():
    law = ib.mean_field_limit(X, Y, ridge=0.05, temperature=1e-3)
    assert law.shares.sum() == pytest.approx(1, rel=1e-12)
    assert (np.diff(law.angles) >= 0).all()
    outputs = ib.outputs(law.theta, X)
    np.testing.assert_allclose(outputs, Y + len(X) * law.residuals, rtol=1e-8, atol=1e-10)
    assert ib.largest_q(X, law.residuals, ridge=0.05) < 1


def test_as_the_temperature_falls_the_limit_tends_to_the_convex_minimum():
    best = residuals(ib.convex_minimum(X, Y, ridge=0.05), X, Y)
    distances = [
        abs(ib.mean_field_limit(X, Y, ridge=0.05, temperature=t).residuals - best).max()
        for t in (1e-2, 1e-3, 1e-4, 1e-5)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-4


def test_neurons_trained_with_noise_have_the_balance_and_the_outputs_of_the_limit():
    options = {"ridge": 0.5, "step_size": 0.02, "temperature": 0.05, "key": jax.random.key(0)}
    run = ib.train(neurons(0, 2000), X, Y, steps=4000, **options)
    a, w, b = run.theta.T
    # equipartition: one degree of freedom in a, two in (w, b)
    assert np.mean(w**2 + b**2 - a**2) == pytest.approx(0.05 / 0.5, abs=0.02)
    law = ib.mean_field_limit(X, Y, ridge=0.5, temperature=0.05)
    mean = run.outputs[1000:].mean(axis=0)
    np.testing.assert_allclose(mean, Y + len(X) * law.residuals, atol=0.02)
    quantiles = np.sort(ib.angle_quantiles(law, run.theta))
    assert abs(quantiles - np.linspace(0, 1, 2000)).max() < 1.95 / np.sqrt(2000)


def test_the_knot_of_two_samples_has_the_width_of_student_with_three_degrees_of_freedom():
    weight = (2 - 0.2 / np.sqrt(101)) / np.sqrt(101)
    for temperature in (1e-6, 1e-5):
        law = ib.mean_field_limit(*TWO, ridge=0.1, temperature=temperature)
        expected = 1.52978 / np.sqrt(3) * 1.01 * np.sqrt(temperature / (2 * 0.1 * weight))
        assert ib.knot_width(law, -0.5, 0.0) == pytest.approx(expected, rel=2e-3)


def test_the_quantiles_of_angles_are_the_integral_of_the_density():
    law = ib.mean_field_limit(X, Y, ridge=0.05, temperature=1e-2)
    theta = neurons(0, 4)

    def density(phi):
        return 1 / (1 - q_of(law.residuals, X, 0.05, np.array([phi]))[0] ** 2)

    first, points = (
        law.angles[0],
        np.concatenate([np.arctan(-X) % np.pi, np.arctan(-X) % np.pi + np.pi]),
    )
    for found, (_, w, b) in zip(ib.angle_quantiles(law, theta), theta, strict=True):
        phi = first + (np.arctan2(b, w) - first) % (2 * np.pi)
        part, whole = (
            scipy.integrate.quad(density, first, end, points=points[points < end], limit=500)[0]
            for end in (phi, first + 2 * np.pi)
        )
        assert found == pytest.approx(part / whole, abs=0.005)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (r"theta: expected rows \(a, w, b\)", lambda: ib.outputs(np.ones((4, 2)), X)),
        (
            "x: expected at least two inputs, increasing",
            lambda: ib.convex_minimum(X[::-1], Y, ridge=1),
        ),
        ("y: expected 5 labels", lambda: ib.mean_field_limit(X, Y[:3], ridge=1, temperature=1)),
        ("residuals: expected 5", lambda: ib.largest_q(X, Y[:3], ridge=1)),
        ("ridge: expected a finite number > 0", lambda: ib.lower_bound(X, Y, Y, ridge=0)),
        (
            "key: expected a random key",
            lambda: ib.train(neurons(0), X, Y, ridge=1, step_size=0.1, steps=1, temperature=0.1),
        ),
        (
            "temperature: expected a finite number >= 0",
            lambda: ib.train(neurons(0), X, Y, ridge=1, step_size=0.1, steps=1, temperature=-1.0),
        ),
        ("width: expected a finite number > 0", lambda: ib.knots(neurons(0), width=0)),
    ],
)
def test_bad_input_is_refused_with_a_message_that_names_it(message, call):
    with pytest.raises(ValueError, match=message):
        call()
