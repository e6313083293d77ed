import functools
import itertools
import subprocess
import sys

import helpers
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from jax.example_libraries import optimizers
from tqdm import tqdm

from ntk_utils import (
    Network,
    SmoothedLeakyReLU,
    TrainingInterrupted,
    adam,
    apply,
    contradictions,
    difference_network,
    empirical_ntk,
    frozen_residuals,
    gauss_newton,
    gaussian,
    gradient_descent,
    gradient_flow,
    init_params,
    least_norm_step,
    loss_gradient,
    memorizing_network,
    training,
    uniform_sphere,
)


def problem(key, widths=(6, 16, 64, 1), n=10):
    """Weights, samples and Gaussian labels."""
    key_x, key_w, key_y = jax.random.split(key, 3)
    params = init_params(Network(widths, "he"), key_w)
    return params, uniform_sphere(key_x, n, widths[0]), jax.random.normal(key_y, (n,))


def jacobian(params, x):
    columns = jax.jacobian(lambda p: apply(p, x))(params)
    return np.concatenate([np.asarray(c).reshape(len(x), -1) for c in columns], axis=1)


def flat(params):
    return np.concatenate([np.ravel(w) for w in params])


def states(fit, x, y):
    r = np.asarray(apply(fit.params, x)) - np.asarray(y)
    return (r**2).sum() / 2, np.abs(r).max()


@pytest.mark.parametrize("activation", [jax.nn.relu, *helpers.SMOOTH])
def test_the_gradient_of_the_loss_is_that_of_automatic_differentiation(activation, key):
    params, x, y = problem(key)
    loss = lambda p: ((apply(p, x, activation=activation) - y) ** 2).sum() / 2  # noqa: E731
    gradients = loss_gradient(params, x, y, activation=activation)
    for gradient, expected in zip(gradients, jax.grad(loss)(params), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)


def test_the_gradient_of_a_linear_model_is_its_residual_times_the_samples():
    (gradient,) = loss_gradient((np.array([[2.0], [1.0]]),), [[1, 3], [2, 0]], [4, 4])
    # the outputs are 5 and 4
    np.testing.assert_array_equal(gradient, [[1.0], [3.0]])


@pytest.mark.parametrize("train", [gauss_newton, gradient_descent])
def test_the_last_loss_and_error_are_those_of_the_returned_weights(train, key):
    params, x, y = problem(key)
    fit = train(params, x, y, steps=3)
    assert fit.losses.shape == fit.errors.shape == (4,)
    loss, error = states(fit, x, y)
    # outputs of the order of 1 are rounded, those of training by other sums than those of `apply`
    np.testing.assert_allclose(np.sqrt(fit.losses[-1]), np.sqrt(loss), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(fit.errors[-1], error, rtol=1e-12, atol=1e-14)
    start = np.asarray(apply(params, x)) - np.asarray(y)
    np.testing.assert_allclose(fit.losses[0], start @ start / 2, rtol=1e-12)


def test_a_gauss_newton_step_is_levenbergs_in_the_jacobian_of_all_weights(key):
    params, x, y = problem(key)
    fit = gauss_newton(params, x, y, steps=1)
    j = jacobian(params, x)
    damping = 1e-3 * np.trace(j @ j.T) / len(x)
    r = np.asarray(apply(params, x) - y)
    step = np.linalg.solve(j.T @ j + damping * np.eye(j.shape[1]), j.T @ r)
    np.testing.assert_allclose(flat(params) - flat(fit.params), step, rtol=1e-7, atol=1e-9)


def test_a_step_of_gradient_descent_is_the_gradient_of_half_the_squared_residual(key):
    params, x, y = problem(key)
    fit = gradient_descent(params, x, y, steps=1, step_size=0.01)
    gradient = jax.grad(lambda p: ((apply(p, x) - y) ** 2).sum() / 2)(params)
    np.testing.assert_allclose(flat(params) - flat(fit.params), 0.01 * flat(gradient), rtol=1e-9)


def test_the_step_size_is_by_default_one_over_the_largest_eigenvalue(key):
    params, x, y = problem(key)
    eta = 1 / np.linalg.eigvalsh(empirical_ntk(params, x))[-1]
    default = gradient_descent(params, x, y, steps=20)
    np.testing.assert_allclose(
        default.losses, gradient_descent(params, x, y, steps=20, step_size=eta).losses, rtol=1e-9
    )


def test_a_linear_model_follows_the_closed_form_of_gradient_descent(key):
    params, x, y = problem(key, widths=(12, 1), n=8)
    k = np.asarray(x @ x.T)
    eta = 1 / np.linalg.eigvalsh(k)[-1]
    r = np.asarray(apply(params, x) - y)
    fit = gradient_descent(params, x, y, steps=450, tolerance=1e-300)
    for t in (0, 1, 200, 201, 450):  # within one compiled call of 200 steps, and across them
        r_t = np.linalg.matrix_power(np.eye(8) - eta * k, t) @ r
        np.testing.assert_allclose(fit.losses[t], r_t @ r_t / 2, rtol=1e-6, atol=1e-20)
    assert len(fit.losses) == 451


def test_orthogonal_samples_are_fitted_by_one_step_of_gradient_descent():
    x = np.sqrt(5) * np.eye(5)
    fit = gradient_descent([np.ones((5, 1))], x, np.arange(5))
    assert len(fit.losses) == 2
    assert fit.errors[-1] < 1e-12
    np.testing.assert_allclose(fit.params[0][:, 0], np.arange(5) / np.sqrt(5), atol=1e-12)


@pytest.mark.parametrize("seed", range(100))
def test_gauss_newton_fits_any_labels_when_one_layer_is_wide(seed):
    params, x, y = problem(jax.random.key(seed), widths=(6, 16, 80, 1))
    scale = 10.0 ** (seed % 5 - 2)  # labels from 0.01 to 100
    fit = gauss_newton(params, x, scale * y)
    assert fit.errors[-1] <= 1e-9
    assert (np.diff(fit.losses) <= 0).all()
    assert states(fit, x, scale * y)[1] <= 1e-9


def test_gauss_newton_converges_quadratically_near_the_fit(key):
    errors = gauss_newton(*problem(key, widths=(20, 400, 1)), tolerance=1e-12).errors
    assert errors[-1] < 1e-12
    assert len(errors) < 12
    assert errors[-2] < errors[-3] ** 1.3


def test_gradient_descent_fits_within_twice_the_steps_of_the_frozen_kernel(key):
    params, x, y = problem(key, widths=(20, 400, 1))
    eigenvalues = np.linalg.eigvalsh(empirical_ntk(params, x))
    r = np.linalg.norm(apply(params, x) - y)
    steps = int(2 * eigenvalues[-1] / eigenvalues[0] * np.log(r / 1e-3))
    fit = gradient_descent(params, x, y, steps=steps, tolerance=1e-3)
    assert fit.errors[-1] <= 1e-3 < fit.errors[-2]
    assert steps / 10 < len(fit.losses) <= steps + 1


def test_gradient_descent_stops_at_the_step_that_reaches_the_tolerance(key):
    params, x, y = problem(key)
    fit = gradient_descent(params, x, y, steps=3000, tolerance=0.1)
    taken = len(fit.losses) - 1
    again = gradient_descent(params, x, y, steps=taken)
    np.testing.assert_allclose(flat(fit.params), flat(again.params), rtol=1e-9)
    assert fit.errors[-1] <= 0.1 < fit.errors[-2]


# --- the trajectory -------------------------------------------------------------------------------

ACTIVATIONS = [jax.nn.relu, *helpers.SMOOTH]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_squared_gradient_is_the_quadratic_form_of_the_ntk_along_the_path(activation, key):
    params, x, y = problem(key)
    run = gradient_descent(params, x, y, steps=30, activation=activation, record_every=7)
    assert list(run.path) == [0, 7, 14, 21, 28, 30]
    for step, weights in run.path.items():
        r = np.asarray(apply(weights, x, activation=activation) - y)
        k = np.asarray(empirical_ntk(weights, x, activation=activation))
        assert run.losses[step] == pytest.approx(r @ r / 2, rel=1e-10)
        assert run.gradient_norms[step] == pytest.approx(np.sqrt(r @ k @ r), rel=1e-10)
    moved = [np.linalg.norm(flat(run.path[step]) - flat(params)) for step in run.path]
    assert (np.diff(moved) > 0).all()  # not one state six times


@pytest.mark.parametrize("record_every", [1, 3, 199, 200, 201, 450, 1000])
def test_recording_does_not_change_the_run(record_every, key):
    params, x, y = problem(key)
    plain = gradient_descent(params, x, y, steps=450, tolerance=1e-300)
    run = gradient_descent(params, x, y, steps=450, tolerance=1e-300, record_every=record_every)
    assert plain.path == {}
    assert list(run.path) == [*range(0, 450, record_every), 450]
    np.testing.assert_allclose(run.losses, plain.losses, rtol=1e-9)
    np.testing.assert_array_equal(flat(run.path[450]), flat(run.params))
    np.testing.assert_array_equal(flat(run.path[0]), flat(params))


def test_a_linear_model_has_the_residuals_of_its_frozen_kernel(key):
    params, x, y = problem(key, widths=(6, 1), n=4)
    run = gradient_descent(params, x, y, steps=30, record_every=10, tolerance=1e-300)
    k = np.asarray(empirical_ntk(params, x))
    eta = 1 / np.linalg.eigvalsh(k)[-1]
    start = np.asarray(apply(params, x) - y)
    predicted = frozen_residuals(k, start, eta, run.path)
    actual = [np.asarray(apply(weights, x) - y) for weights in run.path.values()]
    np.testing.assert_allclose(predicted, actual, rtol=1e-9, atol=1e-12)
    assert np.linalg.norm(predicted[-1]) < 0.9 * np.linalg.norm(start)


def test_the_path_ends_at_the_step_that_reaches_the_tolerance(key):
    params, x, y = problem(key)
    run = gradient_descent(params, x, y, steps=3000, tolerance=0.1, record_every=10)
    taken = len(run.losses) - 1
    assert list(run.path) == [*range(0, taken, 10), taken]
    assert np.abs(apply(run.path[taken], x) - y).max() <= 0.1


def test_an_interrupted_run_loses_none_of_the_steps_that_it_has_taken(key, monkeypatch):
    params, x, y = problem(key)
    whole = gradient_descent(params, x, y, steps=50, record_every=10)
    descend, calls, at_call = training._descend, itertools.count(), 2

    def interrupted(*args):
        if next(calls) == at_call:
            raise KeyboardInterrupt
        return descend(*args)

    monkeypatch.setattr(training, "_descend", interrupted)
    with pytest.raises(TrainingInterrupted, match="after 20 of 50 steps") as interruption:
        gradient_descent(params, x, y, steps=50, record_every=10)
    run = interruption.value.run
    assert list(run.path) == [0, 10, 20]
    np.testing.assert_array_equal(run.losses[:20], whole.losses[:20])
    np.testing.assert_array_equal(flat(run.params), flat(whole.path[20]))

    calls, at_call = itertools.count(), 0  # before the first step
    with pytest.raises(TrainingInterrupted, match="after 0 of 50 steps") as interruption:
        gradient_descent(params, x, y, steps=50)
    np.testing.assert_array_equal(interruption.value.run.losses, whole.losses[:1])


def test_a_long_run_shows_its_progress(key, monkeypatch, capsys):
    monkeypatch.setattr(
        training, "progress_bar", lambda total, **_: tqdm(total=total, disable=False)
    )
    gradient_descent(*problem(key), steps=600, tolerance=1e-300)
    assert "600/600" in capsys.readouterr().err


# --- gradient flow --------------------------------------------------------------------------------


def test_the_flow_of_a_linear_model_is_the_exponential_of_its_kernel(key):
    params, x, y = problem(key, widths=(6, 1), n=4)
    times = [0.0, 0.01, 0.3, 2.0]
    flow = gradient_flow(params, x, y, times, activation=jnp.tanh)
    k, r = np.asarray(empirical_ntk(params, x)), np.asarray(apply(params, x) - y)
    for i, t in enumerate(times):
        expected = scipy.linalg.expm(-t * k) @ r
        np.testing.assert_allclose(apply(flow.path[i], x) - y, expected, atol=1e-5)
        assert flow.losses[i] == pytest.approx(expected @ expected / 2, rel=1e-4)
        assert flow.errors[i] == pytest.approx(abs(expected).max(), rel=1e-4)
        gradient = np.sqrt(expected @ k @ expected)
        assert flow.gradient_norms[i] == pytest.approx(gradient, rel=1e-4)
    np.testing.assert_array_equal(flow.times, times)


def test_the_flow_of_orthonormal_samples_goes_from_its_start_as_its_residual_falls():
    times, w = np.array([0, 0.5, 2]), np.array([[1.0], [2.0], [3.0]])
    flow = gradient_flow((w,), np.eye(3), np.zeros(3), times, activation=jnp.tanh)
    # W(t) = e^{-t} W(0)
    expected = (1 - np.exp(-times)) * np.sqrt(14)
    np.testing.assert_allclose(flow.distances, expected, rtol=1e-5)


def test_the_distance_of_the_flow_from_its_start_is_that_of_all_weights(key):
    params, x, y = problem(key, (6, 8, 4, 1), 5)
    flow = gradient_flow(params, x, y, [0, 1e-3, 1e-1], activation=jnp.tanh)
    expected = [np.linalg.norm(flat(weights) - flat(params)) for weights in flow.path]
    np.testing.assert_allclose(flow.distances, expected, rtol=1e-12)


def test_gradient_descent_tends_to_the_flow_at_first_order_in_the_step_size(key):
    params, x, y = problem(key, widths=(6, 16, 8, 1))
    smooth = SmoothedLeakyReLU()
    flow = gradient_flow(params, x, y, [0, 0.05], activation=smooth)
    steps = np.array([50, 100, 200])
    errors = []
    for n in steps.tolist():
        run = gradient_descent(params, x, y, steps=n, step_size=0.05 / n, activation=smooth)
        errors.append(np.linalg.norm(flat(run.params) - flat(flow.path[-1])))
    np.testing.assert_allclose(errors * steps, errors[-1] * steps[-1], rtol=0.2)
    assert errors[-1] < 0.01 * np.linalg.norm(flat(flow.path[-1]) - flat(params))


def test_a_stricter_tolerance_of_the_flow_changes_its_end_by_less(key):
    params, x, y = problem(key, widths=(6, 16, 8, 1))
    ends = [
        flat(gradient_flow(params, x, y, [0, 1], activation=jnp.tanh, tolerance=t).path[-1])
        for t in (1e-3, 1e-5, 1e-8)
    ]
    assert np.linalg.norm(ends[0] - ends[2]) < 1e-1
    assert np.linalg.norm(ends[1] - ends[2]) < 1e-3


def test_an_interrupted_flow_returns_the_times_that_it_reached(key, monkeypatch):
    params, x, y = problem(key, widths=(6, 8, 1))
    whole = gradient_flow(params, x, y, [0, 0.1, 0.2, 0.3], activation=jnp.tanh)
    solve, calls = training.scipy.integrate.solve_ivp, itertools.count()

    def interrupted(*args, **options):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return solve(*args, **options)

    monkeypatch.setattr(training.scipy.integrate, "solve_ivp", interrupted)
    with pytest.raises(TrainingInterrupted, match=r"at time 0.2 of 0.3") as interruption:
        gradient_flow(params, x, y, [0, 0.1, 0.2, 0.3], activation=jnp.tanh)
    run = interruption.value.run
    np.testing.assert_array_equal(run.times, [0, 0.1, 0.2])
    np.testing.assert_array_equal(run.losses, whole.losses[:3])
    np.testing.assert_array_equal(flat(run.path[2]), flat(whole.path[2]))


# --- Adam -----------------------------------------------------------------------------------------


def test_adam_takes_the_steps_of_the_adam_of_jax(key):
    params, x, y = problem(key, widths=(6, 16, 1))
    init, update, weights_of = optimizers.adam(0.01)
    state, loss = init(params), lambda p: ((apply(p, x) - y) ** 2).sum() / 2
    losses = []
    for i in range(100):
        value, gradient = jax.value_and_grad(loss)(weights_of(state))
        losses.append(float(value))
        state = update(i, gradient, state)
    fit = adam(params, x, y, learning_rate=0.01, steps=100)
    np.testing.assert_allclose(fit.losses[:100], losses, rtol=1e-9)
    np.testing.assert_allclose(flat(fit.params), flat(weights_of(state)), rtol=1e-7)
    assert fit.losses[100] == pytest.approx(float(loss(fit.params)))


def test_adam_ends_within_the_tolerance_and_counts_its_steps_in_hundreds(key):
    params, x, y = problem(key)
    fit = adam(params, x, y, tolerance=1e-3)
    assert fit.errors[-1] <= 1e-3 < fit.errors[-102]
    assert len(fit.losses) % 100 == 1
    assert len(adam(params, x, y, steps=150, tolerance=1e-300).losses) == 201


def test_adam_ends_after_the_hundred_steps_over_which_the_loss_rose(key):
    params, x, y = problem(key, widths=(4, 3, 1), n=40)  # fewer weights than labels
    fit = adam(params, x, y, learning_rate=0.1)
    sums = fit.losses[:-1].reshape(-1, 100).sum(axis=1)
    assert len(fit.losses) < 10_001
    assert sums[-1] > sums[-2]
    assert (np.diff(sums[:-1]) <= 0).all()
    assert fit.errors[-1] > 1e-2


def test_without_the_rule_adam_goes_on_after_the_loss_rose(key):
    params, x, y = problem(key, widths=(4, 3, 1), n=40)
    train = functools.partial(adam, params, x, y, learning_rate=0.1)
    by_rule = train()
    taken = len(by_rule.losses)
    longer = train(until_it_rises=False, steps=taken + 200)
    assert len(longer.losses) > taken + 99
    np.testing.assert_array_equal(longer.losses[:taken], by_rule.losses)


def test_adam_takes_the_learning_rate_of_its_source_by_default(key):
    params, x, y = problem(key, n=16)
    given = adam(params, x, y, learning_rate=0.1 / 4, steps=100)
    np.testing.assert_array_equal(adam(params, x, y, steps=100).losses, given.losses)


def test_an_interrupted_run_of_adam_returns_the_steps_taken(key, monkeypatch):
    params, x, y = problem(key)
    train = functools.partial(adam, params, x, y, steps=300, tolerance=1e-300)
    whole = train()
    hundred, calls = training._adam, itertools.count()

    def interrupted(*args):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return hundred(*args)

    monkeypatch.setattr(training, "_adam", interrupted)
    with pytest.raises(TrainingInterrupted, match="after 200 of 300 steps") as interruption:
        train()
    np.testing.assert_array_equal(interruption.value.run.losses, whole.losses[:201])


def test_a_learning_rate_at_which_adam_overflows_is_refused(key):
    with pytest.raises(ValueError, match=r"learning_rate: expected .* got 1e\+200"):
        adam(*problem(key), learning_rate=1e200)


def test_labels_that_are_fitted_already_need_no_step(key):
    params, x, _ = problem(key)
    for train in (gauss_newton, gradient_descent, adam):
        fit = train(params, x, apply(params, x))
        assert fit.losses.shape == (1,)
        assert fit.errors[0] < 1e-14


def test_fewer_weights_than_samples_cannot_fit_generic_labels(key):
    params, x, y = problem(key, widths=(4, 3, 1), n=40)
    fit = gauss_newton(params, x, y, steps=30)
    assert fit.errors[-1] > 1e-3
    assert (np.diff(fit.losses) <= 0).all()
    # steps were refused on the way, and the returned weights are those of the last one taken
    assert (np.diff(fit.losses) == 0).any()
    np.testing.assert_allclose(fit.losses[-1], states(fit, x, y)[0], rtol=1e-9)


def test_integer_labels_and_single_precision_samples_are_taken(key):
    params, x, _ = problem(key)
    fit = gauss_newton(params, jnp.asarray(x, dtype="float32"), np.arange(len(x)) % 3)
    assert fit.errors[-1] <= 1e-9
    assert fit.params[0].dtype == jnp.float64


@pytest.mark.parametrize("train", [gauss_newton, gradient_descent])
def test_the_given_weights_are_not_changed(train, key):
    params, x, y = problem(key)
    before = [np.array(w) for w in params]
    train(params, x, y, steps=3)
    for w, w_before in zip(params, before, strict=True):
        np.testing.assert_array_equal(w, w_before)


def test_contradictions_of_a_known_configuration():
    x = np.array([[1.0, 2.0], [3.0, 6.0], [-1.0, -2.0], [1.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    assert contradictions(x, [1.0, 3.0, 7.0, 1.0, 0.0, 0.0]) == []
    assert contradictions(x, [1.0, 1.0, 7.0, 2.0, 0.0, 5.0]) == [(0, 1), (0, 3), (1, 3), (5, 5)]


def test_samples_in_general_position_have_no_contradictions(key):
    assert contradictions(gaussian(key, 300, 3), jax.random.normal(key, (300,))) == []


@pytest.mark.parametrize("factor", [0.1, 1.0, 7.0])
def test_a_multiple_of_a_sample_with_that_multiple_of_its_label_is_fitted(factor, key):
    params, x, y = problem(key)
    x, y = x.at[4].set(factor * x[1]), y.at[4].set(factor * y[1])
    assert contradictions(x, y) == []
    assert gauss_newton(params, x, y).errors[-1] <= 1e-9


def test_contradictory_labels_are_refused_by_the_names_of_their_samples(key):
    params, x, y = problem(key)
    x = x.at[4].set(x[1]).at[8].set(x[1])
    message = r"y: expected labels .*, got contradictory .* \(1, 4\), \(1, 8\), \(4, 8\)"
    with pytest.raises(ValueError, match=message):
        gauss_newton(params, x, y)


def test_many_contradictions_are_listed_in_part():
    x = np.ones((30, 3))
    with pytest.raises(ValueError, match=r"\(0, 10\) and 425 more$"):
        gauss_newton([np.ones((3, 1))], x, np.arange(30.0))


def test_contradictory_labels_keep_every_network_above_the_floor(key):
    params, x, y = problem(key)
    x, y = x.at[4].set(x[1]), y.at[1].set(1.0).at[4].set(-1.0)
    fit = gradient_descent(params, x, y, steps=3000)
    assert (fit.losses >= 1 - 1e-12).all()
    assert fit.losses[-1] < 1.01  # (1 - (-1))²/4 = 1 is reached: all else is fitted


def test_too_large_a_step_is_an_error_that_names_it(key):
    params, x, y = problem(key, widths=(6, 1))
    with pytest.raises(ValueError, match=r"step_size: expected .* stable, got 10: .* after \d+ s"):
        gradient_descent(params, x, y, steps=500, step_size=10.0)


def test_importing_the_package_imports_neither_training_nor_report():
    code = (
        "import sys, ntk_utils; "
        "assert not {'ntk_utils.training', 'ntk_utils.report', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def widths_of(params):
    return (*(len(w) for w in params), params[-1].shape[1])


@pytest.mark.parametrize("widths", [(6, 16, 64, 1), (12, 1), (6, 20, 10, 40, 1)])
def test_the_least_norm_step_is_that_of_the_pseudo_inverse_of_the_jacobian(widths, key):
    params, x, y = problem(key, widths)
    j = jacobian(params, x)
    step = flat(least_norm_step(params, x, y))
    np.testing.assert_allclose(step, np.linalg.pinv(j) @ y, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(j @ step, y, rtol=1e-9, atol=1e-9)


def test_with_a_repeated_sample_the_least_norm_step_meets_the_mean_of_its_labels(key):
    params, x, y = problem(key)
    x, y = x.at[4].set(x[1]), y.at[1].set(1.0).at[4].set(-3.0)
    j = jacobian(params, x)
    step = flat(least_norm_step(params, x, y))
    np.testing.assert_allclose(step, np.linalg.pinv(j, rcond=1e-7) @ y, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(j @ step, y.at[1].set(-1.0).at[4].set(-1.0), rtol=1e-7, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.floats(1e-3, 1e3),
    st.integers(0, 1000),
)
def test_the_difference_network_is_the_difference_quotient(widths, scale, seed):
    keys = jax.random.split(jax.random.key(seed), 3)
    network = Network((*widths, 1), "he")
    params, step = init_params(network, keys[0]), init_params(network, keys[1])
    x = gaussian(keys[2], 5, widths[0])
    built = difference_network(params, step, scale)
    assert widths_of(built) == (widths[0], *(2 * n for n in widths[1:]), 1)
    moved = [w + dw / scale for w, dw in zip(params, step, strict=True)]
    expected = scale * (np.asarray(apply(moved, x)) - np.asarray(apply(params, x)))
    np.testing.assert_allclose(apply(built, x), expected, rtol=1e-9, atol=1e-9 * (1 + scale))


def test_one_neuron_and_one_sample_leave_an_error_of_exactly_one_quarter_over_c():
    # f(1; θ) = w_2 max(w_1, 0): J = (1, 1), δ = (1/2, 1/2), c ((1 + 1/(2c))² - 1) = 1 + 1/(4c)
    one, half = np.ones((1, 1)), np.full((1, 1), 0.5)
    for c in (1.0, 8.0, 1024.0):
        built = difference_network([one, one], [half, half], c)
        assert widths_of(built) == (1, 2, 1)
        assert apply(built, one)[0] == 1 + 1 / (4 * c)
    for epsilon, c in ((1 / 4, 1), (1 / 5, 2), (1e-6, 2**18)):
        built = memorizing_network([one, one], one, [1.0], epsilon)
        assert c <= -float(built[1][1, 0]) <= 4 * c  # the last weight of the second copy is -c


def test_steps_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"step: expected .*\(3, 2\), \(2, 1\).*got .*\(3, 4\)"):
        difference_network(
            [np.ones((3, 2)), np.ones((2, 1))], [np.ones((3, 4)), np.ones((4, 1))], 1
        )


def test_the_error_of_the_construction_falls_as_one_over_c_with_taylors_constant(key):
    params, x, y = problem(key, widths=(8, 64, 16, 1))
    step = least_norm_step(params, x, y)

    def at(t):
        return apply([w + t * dw for w, dw in zip(params, step, strict=True)], x)

    _, curvature = jax.jvp(lambda t: jax.jvp(at, (t,), (1.0,))[1], (0.0,), (1.0,))
    for c in 2.0 ** np.arange(15, 19):
        error = np.asarray(apply(difference_network(params, step, c), x) - y)
        np.testing.assert_allclose(
            c * error, curvature / 2, rtol=0.02, atol=0.01 * np.abs(curvature).max()
        )


@pytest.mark.parametrize("epsilon", [1.0, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("widths", [(6, 16, 64, 1), (6, 80, 1), (6, 20, 10, 40, 1), (12, 1)])
def test_the_memorizing_network_has_twice_the_widths_and_fits_to_epsilon(widths, epsilon, key):
    params, x, y = problem(key, widths)
    built = memorizing_network(params, x, y, epsilon)
    assert widths_of(built) == (widths[0], *(2 * n for n in widths[1:-1]), 1)
    assert np.abs(np.asarray(apply(built, x) - y)).max() <= epsilon


@pytest.mark.parametrize("seed", range(100))
def test_any_labels_are_memorized_when_one_layer_is_wide(seed):
    params, x, y = problem(jax.random.key(seed), widths=(6, 16, 80, 1))
    scale = 10.0 ** (seed % 5 - 2)  # labels from 0.01 to 100
    built = memorizing_network(params, x, scale * y, 1e-5 * scale)
    assert np.abs(np.asarray(apply(built, x) - scale * y)).max() <= 1e-5 * scale


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=3),
    st.integers(1, 8),
    st.sampled_from([1e-4, 1.0, 1e4]),
    st.floats(1e-12, 1.0),
    st.integers(0, 1000),
)
def test_it_fits_or_says_what_prevents_it(widths, n, label_scale, epsilon, seed):
    keys = jax.random.split(jax.random.key(seed), 3)
    params = init_params(Network((*widths, 1), "he"), keys[0])
    x, y = gaussian(keys[1], n, widths[0]), label_scale * jax.random.normal(keys[2], (n,))
    built, reason = None, ""
    try:
        built = memorizing_network(params, x, y, epsilon)
    except ValueError as error:
        reason = str(error)
    if built is None:
        assert reason.startswith(("params: expected", "epsilon: expected", "y: expected"))
    else:
        assert sum(w.size for w in params) >= n
        assert np.abs(np.asarray(apply(built, x) - y)).max() <= epsilon


def test_labels_times_a_power_of_two_multiply_the_last_matrix_alone(key):
    params, x, y = problem(key)
    for factor in (2.0**-20, 2.0**10):
        *hidden, last = memorizing_network(params, x, y, 1e-4)
        *hidden_2, last_2 = memorizing_network(params, x, factor * y, factor * 1e-4)
        np.testing.assert_array_equal(last_2, factor * last)
        for w, w_2 in zip(hidden, hidden_2, strict=True):
            np.testing.assert_array_equal(w, w_2)


def test_labels_that_are_all_zero_are_memorized(key):
    params, x, _ = problem(key)
    assert np.abs(apply(memorizing_network(params, x, np.zeros(len(x)), 1e-12), x)).max() <= 1e-12


def test_contradictory_labels_prevent_memorizing_and_are_named(key):
    params, x, y = problem(key)
    with pytest.raises(ValueError, match=r"y: expected labels .*, got contradictory .* \(1, 4\)"):
        memorizing_network(params, x.at[4].set(x[1]), y, 1e-3)


def test_a_singular_kernel_prevents_memorizing(key):
    message = r"params: expected .* positive definite, got .* singular to rounding"
    params, x, y = problem(key)
    repeated, agreeing = x.at[4].set(x[1]), y.at[4].set(y[1])
    with pytest.raises(ValueError, match=message):
        memorizing_network(params, repeated, agreeing, 1e-3)
    with pytest.raises(ValueError, match=message):  # fewer weights than samples
        memorizing_network(*problem(key, widths=(4, 3, 1), n=40), 1e-3)
    with pytest.raises(ValueError, match=message):  # no gradient reaches any sample
        memorizing_network([0 * w for w in params], x, y, 1e-3)


def test_an_epsilon_below_what_double_precision_reaches_is_refused_with_what_it_reaches(key):
    params, x, y = problem(key)
    message = r"epsilon: expected at least .* double precision, here about (\S+), got 1e-14"
    with pytest.raises(ValueError, match=message) as info:
        memorizing_network(params, x, y, 1e-14)
    reached = float(str(info.value).split("about ")[1].split(",")[0])
    assert 1e-11 < reached < 1e-5
    assert len(memorizing_network(params, x, y, 1.1 * reached)) == len(params)


def test_memorizing_takes_integer_labels_and_single_precision_and_changes_no_weights(key):
    params, x, _ = problem(key)
    before = [np.array(w) for w in params]
    x, y = jnp.asarray(x, dtype="float32"), np.arange(len(x)) % 3
    built = memorizing_network(params, x, y, 1e-5)
    assert built[0].dtype == jnp.float64
    assert np.abs(np.asarray(apply(built, x)) - y).max() <= 1e-5
    for w, w_before in zip(params, before, strict=True):
        np.testing.assert_array_equal(w, w_before)


def test_neurons_that_are_all_off_are_refused_by_gradient_descent_where_no_step_size_is_given():
    dead = (-np.ones((3, 4)), np.ones((4, 1)))
    x = np.abs(np.random.default_rng(0).normal(size=(6, 3)))
    with pytest.raises(ValueError, match=r"^params: expected weights that some sample moves, got"):
        gradient_descent(dead, x, np.ones(6))
    fit = gradient_descent(dead, x, np.ones(6), step_size=0.1, steps=3)
    assert set(fit.errors) == {1.0}
