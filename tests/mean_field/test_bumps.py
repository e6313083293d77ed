"""Bumps on the cube: the network, its training, and the porous-medium equation, its limit."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from ntk_utils.mean_field import bumps

DIMS = [1, 2, 3]
CELLS = {1: 200, 2: 30, 3: 12}


def interior(n, dim, seed=0, low=0.3, high=0.7):
    return np.random.default_rng(seed).uniform(low, high, (n, dim))


def textbook_mixture(x, w, delta):
    """f̂ as its definition has it, with differences x - w_i; differentiable."""
    dim = w.shape[1]
    height = math.gamma(dim / 2 + 4) / (6 * math.pi ** (dim / 2)) / delta**dim
    squares = (((x[:, None, :] - w[None, :, :]) / delta) ** 2).sum(axis=2)
    return height * (jnp.maximum(1 - squares, 0) ** 3).mean(axis=1)


# --- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", DIMS)
def test_a_mixture_in_the_interior_has_mass_one(dim):
    x = bumps.midpoints(CELLS[dim], dim)
    values = bumps.mixture(x, interior(5, dim), 0.3)
    assert float(values.mean()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dim", DIMS)
def test_a_mixture_is_the_sum_of_its_definition(dim):
    x, w = interior(50, dim, seed=1), interior(7, dim)
    expected = textbook_mixture(x, w, 0.3)
    np.testing.assert_allclose(bumps.mixture(x, w, 0.3), expected, rtol=1e-9, atol=1e-12)


def test_a_bump_on_the_boundary_has_half_of_its_mass_inside():
    values = bumps.mixture(bumps.midpoints(400), [[0.0]], 0.2)
    assert float(values.mean()) == pytest.approx(0.5, abs=1e-6)


def test_the_risk_of_one_bump_against_a_constant_is_known():
    assert bumps.risk([[0.5]], np.ones(400), 0.5) == pytest.approx(271 / 429, rel=1e-8)


@pytest.mark.parametrize(("dim", "delta", "n"), [(1, 0.1, 100), (2, 0.2, 25), (3, 0.3, 16)])
def test_the_midpoint_rule_resolves_trained_centres_at_the_sizes_in_use(dim, delta, n):
    concave = lambda n: bumps.concave(bumps.midpoints(n, dim), 3)  # noqa: E731
    options = {"delta": delta, "step_size": 4e-3, "steps": 100, "record_every": 100}
    path = bumps.flow(interior(60, dim), concave(n), **options)
    assert path.risks[-1] == pytest.approx(
        bumps.risk(path.centres[-1], concave(2 * n), delta), rel=0.1
    )


# --- targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", DIMS)
def test_both_targets_are_positive_and_of_mass_one(dim):
    x = bumps.midpoints(CELLS[dim], dim)
    for f in (bumps.concave(x, 3.5), bumps.two_peaks(x, 0.02), bumps.two_peaks(x, 0.5)):
        assert f.min() > 0
        assert f.mean() == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize("dim", DIMS)
def test_the_concave_target_has_modulus_alpha_and_two_peaks_are_not_concave(dim):
    a, b = interior(30, dim, 0, 0, 1), interior(30, dim, 1, 0, 1)
    gap = lambda f: f((a + b) / 2) - (f(a) + f(b)) / 2  # noqa: E731
    promised = 3.0 / 8 * ((a - b) ** 2).sum(axis=1)
    np.testing.assert_allclose(gap(lambda x: bumps.concave(x, 3.0)), promised, atol=1e-12)
    for valley in (0.02, 0.5):
        assert (gap(lambda x: bumps.two_peaks(x, valley)) < -0.1).any()  # noqa: B023


def test_a_box_has_mass_one_also_when_its_ends_are_inside_cells():
    density = bumps.box(0.123, 0.456, 40)
    assert density.mean() == pytest.approx(1, rel=1e-12)
    assert density.max() == pytest.approx(1 / 0.333, rel=1e-12)


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 3])
def test_a_step_of_the_flow_is_the_gradient_of_the_risk_by_automatic_differentiation(dim):
    x, w = bumps.midpoints(CELLS[dim], dim), interior(6, dim)
    f = bumps.concave(x, 3.0)
    loss = lambda w: ((f - textbook_mixture(x, w, 0.3)) ** 2).mean() / 2  # noqa: E731
    expected = -len(w) * jax.grad(loss)(jnp.asarray(w))
    path = bumps.flow(w, f, delta=0.3, step_size=1e-5, steps=1, record_every=1)
    np.testing.assert_allclose((path.centres[1] - w) / 1e-5, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dim", [1, 3])
def test_a_step_of_sgd_is_the_gradient_of_its_loss_by_automatic_differentiation(dim):
    w, x, y = interior(6, dim), interior(1, dim, seed=5, low=0.4, high=0.6), np.array([3.0])
    loss = lambda w: (y - textbook_mixture(x, w, 0.3))[0] ** 2 / 2  # noqa: E731
    expected = -len(w) * jax.grad(loss)(jnp.asarray(w))
    f = np.ones(CELLS[dim] ** dim)
    path = bumps.sgd(w, x, y, f, delta=0.3, step_size=1e-6, record_every=1)
    np.testing.assert_allclose((path.centres[1] - w) / 1e-6, expected, rtol=1e-5, atol=1e-6)


def test_the_flow_converges_to_what_an_integrator_of_scipy_finds_at_first_order():
    w, f = interior(8, 1), bumps.concave(bumps.midpoints(100), 6)
    x = bumps.midpoints(100)

    @jax.jit
    @jax.grad
    def gradient(w):
        return ((f - textbook_mixture(x, w[:, None], 0.2)) ** 2).mean() / 2

    velocity = lambda _, w: -len(w) * np.asarray(gradient(w))  # noqa: E731
    exact = scipy.integrate.solve_ivp(velocity, (0, 0.05), w[:, 0], rtol=1e-9, atol=1e-11).y[:, -1]
    errors = []
    for steps in (100, 200, 400):
        options = {"delta": 0.2, "step_size": 0.05 / steps, "steps": steps, "record_every": steps}
        errors.append(abs(bumps.flow(w, f, **options).centres[-1, :, 0] - exact).max())
    assert errors[2] < 1e-3
    assert np.log2(np.divide(errors[:2], errors[1:])) == pytest.approx([1, 1], abs=0.1)


def test_the_mean_step_of_sgd_is_that_of_the_flow_and_noise_in_labels_does_not_change_it():
    w, eps, cells = interior(10, 1), 1e-9, bumps.midpoints(400)
    f = lambda x: bumps.concave(x, 6)  # noqa: E731
    flow = bumps.flow(w, f(cells), delta=0.3, step_size=eps, steps=1, record_every=1)
    drift = (flow.centres[1] - w) / eps
    n = 40_000  # steps so small that all are taken at the start
    x, y = bumps.noisy_samples(jax.random.key(0), f, n, 1, 0.5)
    sgd = bumps.sgd(w, x, y, f(cells), delta=0.3, step_size=eps, record_every=n)
    mean = (sgd.centres[1] - w) / (n * eps)
    assert abs(mean - drift).max() < 0.06 * abs(drift).max()


def test_centres_that_leave_the_cube_are_put_back_on_its_boundary_and_stay_together():
    f = bumps.concave(bumps.midpoints(100), 6)
    w = np.linspace(0, 0.1, 50)[:, None]
    path = bumps.flow(w, f, delta=0.1, step_size=5e-4, steps=400, record_every=100)
    assert (path.centres >= 0).all()
    stuck = [(w == 0).sum() for w in path.centres]
    assert stuck[1] > 5
    assert stuck[-1] >= stuck[1]
    samples = bumps.noisy_samples(jax.random.key(1), lambda x: 5 * np.ones(len(x)), 2000, 2, 1.0)
    path = bumps.sgd(
        interior(20, 2), *samples, np.ones(100), delta=0.5, step_size=1e-2, record_every=100
    )
    assert ((path.centres >= 0) & (path.centres <= 1)).all()


def test_records_are_those_of_a_run_that_records_more_often():
    w, f = interior(9, 1), bumps.concave(bumps.midpoints(50), 3)
    often, seldom = (
        bumps.flow(w, f, delta=0.3, step_size=1e-3, steps=40, record_every=n) for n in (5, 20)
    )
    np.testing.assert_allclose(often.centres[::4], seldom.centres, rtol=1e-12)
    np.testing.assert_allclose(often.times[::4], seldom.times, rtol=1e-12)
    assert often.risks[-1] == pytest.approx(bumps.risk(often.centres[-1], f, 0.3), rel=1e-12)
    x, y = bumps.noisy_samples(jax.random.key(0), lambda x: bumps.concave(x, 3), 60, 1, 0.1)
    often, seldom = (
        bumps.sgd(w, x, y, f, delta=0.3, step_size=1e-4, record_every=n) for n in (10, 30)
    )
    np.testing.assert_allclose(often.centres[::3], seldom.centres, rtol=1e-12)


def test_a_step_that_is_too_large_is_refused_with_the_time_at_which_the_risk_rose():
    f = bumps.concave(bumps.midpoints(100), 6)
    with pytest.raises(
        ValueError, match="step_size: expected one at which the risk falls, got 1: "
    ):
        bumps.flow(interior(20, 1), f, delta=0.1, step_size=1.0, steps=20, record_every=1)


def test_noise_in_labels_raises_the_risk_by_the_predicted_floor():
    f = lambda x: bumps.concave(x, 6)  # noqa: E731
    cells, quotients = bumps.midpoints(100), []
    for seed in range(3):
        w = interior(20, 1, seed)
        w = bumps.flow(w, f(cells), delta=0.2, step_size=1e-3, steps=1000, record_every=1000)[1][-1]
        flow = bumps.flow(w, f(cells), delta=0.2, step_size=5e-3, steps=1000, record_every=10)
        x, y = bumps.noisy_samples(jax.random.key(seed), f, 100_000, 1, 0.5)
        options = {"delta": 0.2, "step_size": 5e-5}
        sgd = bumps.sgd(w, x, y, f(cells), record_every=1000, **options)
        predicted = bumps.noise_floor(w, 100, variance=0.25, **options)
        quotients.append((sgd.risks - flow.risks)[20:].mean() / predicted)
    assert np.mean(quotients) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("dim", [1, 2])
def test_the_floor_is_half_step_size_times_variance_times_the_mean_squared_slope(dim):
    x, w = bumps.midpoints(CELLS[dim], dim), interior(3, dim, low=0.4, high=0.6)
    bump = lambda x, w: textbook_mixture(x[None], w[None], 0.3)[0]  # noqa: E731
    slopes = jax.vmap(lambda w: jax.vmap(lambda x: jax.grad(bump)(x, w))(jnp.asarray(x)))(w)
    expected = 0.5 * 1e-3 * 0.25 * float((slopes**2).sum()) / (len(x) * len(w))
    found = bumps.noise_floor(w, CELLS[dim], delta=0.3, step_size=1e-3, variance=0.25)
    assert found == pytest.approx(expected, rel=1e-9)


# --- the porous-medium equation -------------------------------------------------------------------

TIMES = np.array([0, 0.02, 0.05, 0.1])


def barenblatt(edges, t):
    """Cell means of ρ = (3/(4r)) (1 - z²)_+, z = (x - ½)/r, r = (9t/2)^(1/3)."""
    r = (9 * t / 2) ** (1 / 3)
    z = np.clip((edges - 0.5) / r, -1, 1)
    return np.diff(0.75 * (z - z**3 / 3)) / np.diff(edges)


def test_the_equation_without_target_is_barenblatts_solution_at_first_order():
    errors = []
    for n in (50, 100, 200, 400):
        edges, start, end = np.linspace(0, 1, n + 1), 0.002, 0.03
        solved = bumps.porous_medium(barenblatt(edges, start), np.ones(n), [0, end - start])
        errors.append(abs(solved.density[-1] - barenblatt(edges, end)).mean())
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert errors[-1] < 0.01
    assert (orders > 0.8).all()


def test_viscosity_alone_is_the_heat_equation():
    n, tau = 200, 0.3
    wave = np.cos(np.pi * bumps.midpoints(n)[:, 0])
    # ρ = 1 + a small wave: linearised, it decays at the rate (1 + τ) π²
    solved = bumps.porous_medium(1 + 1e-3 * wave, np.ones(n), TIMES, viscosity=tau)
    heights = 2e3 * (solved.density * wave).mean(axis=1)
    np.testing.assert_allclose(heights, np.exp(-(1 + tau) * np.pi**2 * TIMES), rtol=5e-3)


def test_a_profile_on_a_parabola_moves_to_its_middle_without_changing_its_shape():
    # where f is the parabola c - α(x-½)²/2, ρ = (C - α(x-m)²/2)_+ moves with m - ½ ∝ e^{-αt}
    alpha, n = 60.0, 400
    x, edges = bumps.midpoints(n)[:, 0], np.linspace(0, 1, n + 1)
    r = (1.5 / alpha) ** (1 / 3)
    profile = lambda m: barenblatt(edges - m + 0.5, 2 / 9 * r**3)  # noqa: E731
    f = -alpha / 2 * (x - 0.5) ** 2
    solved = bumps.porous_medium(profile(0.4), f, TIMES)
    for t, density in zip(TIMES, solved.density, strict=True):
        assert abs(density - profile(0.5 - 0.1 * np.exp(-alpha * t))).mean() < 0.02
    # and the risk above its end falls at the rate 2α exactly, the bound of convexity
    above = solved.risks - ((profile(0.5) - f) ** 2).mean()
    np.testing.assert_allclose(above[1] / above[0], np.exp(-2 * alpha * 0.02), rtol=0.05)


@pytest.mark.parametrize("viscosity", [0, 0.1])
def test_mass_is_conserved_and_no_density_is_negative(viscosity):
    f = bumps.concave(bumps.midpoints(100), 11)
    solved = bumps.porous_medium(bumps.box(0, 0.3, 100), f, TIMES, viscosity=viscosity)
    np.testing.assert_allclose(solved.density.mean(axis=1), 1, rtol=1e-10)
    assert (solved.density >= 0).all()


def test_the_risk_falls_and_the_target_itself_is_at_rest():
    f = bumps.two_peaks(bumps.midpoints(100), 0.02)
    falling = bumps.porous_medium(bumps.box(0.2, 0.5, 100), f, TIMES).risks
    assert (np.diff(falling) < 0).all()
    at_rest = bumps.porous_medium(f, f, TIMES)
    np.testing.assert_allclose(at_rest.density, np.tile(f, (4, 1)), rtol=1e-12)
    assert (at_rest.risks < 1e-20).all()


@pytest.mark.parametrize("alpha", [3, 6, 11])
def test_a_concave_target_has_the_rate_of_convexity_and_two_peaks_have_not(alpha):
    times, x = np.linspace(0, 0.3, 16), bumps.midpoints(60)
    for f, holds in ((bumps.concave(x, alpha), True), (bumps.two_peaks(x, 0.02), False)):
        risks = bumps.porous_medium(bumps.box(0, 0.3, 60), f, times).risks
        rates = -np.diff(np.log(risks)) / np.diff(times)
        assert (rates.min() >= 2 * alpha) == holds


@pytest.mark.parametrize("alpha", [3, 11])
def test_the_late_rate_is_twice_the_smallest_eigenvalue(alpha):
    f = bumps.concave(bumps.midpoints(100), alpha)
    risks = bumps.porous_medium(bumps.box(0, 0.3, 100), f, [0, 0.3, 0.35]).risks
    assert np.log(risks[1] / risks[2]) / 0.05 == pytest.approx(2 * bumps.slowest_rate(f), rel=0.01)


def test_the_smallest_eigenvalue_is_known_for_a_constant_and_for_legendres_equation():
    x = bumps.midpoints(400)
    assert bumps.slowest_rate(np.ones(400)) == pytest.approx(np.pi**2, rel=1e-4)
    assert bumps.slowest_rate(bumps.concave(x, 12)) == pytest.approx(12, rel=1e-3)


def test_the_transport_distance_of_a_shift_is_its_length():
    centres = 0.5 + 0.2 * (np.arange(400)[:, None] + 0.5) / 400
    assert bumps.transport_distance(centres, bumps.box(0.2, 0.4, 500)) == pytest.approx(
        0.3, abs=1e-3
    )
    assert bumps.transport_distance(centres, bumps.box(0.5, 0.7, 500)) < 1e-3


def test_many_narrow_bumps_follow_the_equation_and_wide_ones_less():
    f, distances = bumps.concave(bumps.midpoints(200), 6), []
    rho = bumps.porous_medium(bumps.box(0.25, 0.55, 200), f, [0, 0.02]).density[-1]
    w = 0.25 + 0.3 * (np.arange(300)[:, None] + 0.5) / 300
    for delta in (0.2, 0.05):
        path = bumps.flow(w, f, delta=delta, step_size=2e-4, steps=100, record_every=100)
        distances.append(bumps.transport_distance(path.centres[-1], rho))
    assert distances[1] < 0.005
    assert distances[1] < distances[0] / 3


def test_a_crowd_at_rest_over_a_parabola_returns_rigidly_and_its_excess_falls_at_twice_alpha():
    # forces between bumps depend on differences alone
    alpha, cells = 60.0, bumps.midpoints(400)
    f, options = -alpha / 2 * (cells[:, 0] - 0.5) ** 2, {"delta": 0.1, "step_size": 1e-4}
    w = 0.35 + 0.3 * (np.arange(50)[:, None] + 0.5) / 50
    rest = bumps.flow(w, f, steps=8000, record_every=8000, **options)
    path = bumps.flow(rest.centres[-1] - 0.1, f, steps=400, record_every=100, **options)
    back = (1 - 1e-4 * alpha) ** np.arange(0, 401, 100)
    moved = path.centres - rest.centres[-1]
    np.testing.assert_allclose(moved[:, :, 0], np.outer(-0.1 * back, np.ones(50)), atol=1e-3)
    excess = path.risks - rest.risks[-1]
    np.testing.assert_allclose(excess / excess[0], back**2, rtol=2e-3)


def test_noise_injected_into_steps_makes_centres_follow_the_viscous_equation():
    cells, tau = bumps.midpoints(160), 0.2
    f, start = bumps.concave(cells, 6), bumps.box(0.25, 0.55, 160)
    with_noise, without = (
        bumps.porous_medium(start, f, [0, 0.05], viscosity=t).density[-1] for t in (tau, 0.0)
    )
    w = 0.25 + 0.3 * (np.arange(2000)[:, None] + 0.5) / 2000
    options = {"delta": 0.05, "step_size": 2e-4, "steps": 250, "record_every": 250}
    key = jax.random.key(3)
    noisy = bumps.flow(w, f, viscosity=tau, key=key, **options).centres[-1]
    quiet = bumps.flow(w, f, **options).centres[-1]
    distance = bumps.transport_distance
    assert distance(noisy, with_noise) < distance(noisy, without) / 2
    assert distance(quiet, without) < distance(quiet, with_noise) / 2


def test_centres_that_only_noise_moves_spread_as_gaussians():
    # f̂ is flat to rounding where many centres lie evenly, and so is f: no force
    w = 0.5 + 1e-3 * np.linspace(-1, 1, 4000)[:, None]
    options = {"delta": 1.0, "step_size": 1e-6, "steps": 1000, "record_every": 500}
    path = bumps.flow(w, np.ones(100), viscosity=2.0, key=jax.random.key(0), **options)
    spread = path.centres.std(axis=(1, 2))[1:]
    np.testing.assert_allclose(spread, np.sqrt(2 * 2.0 * path.times[1:]), rtol=0.05)


# --- the door -------------------------------------------------------------------------------------

X1, F1 = np.array([[0.5]]), np.ones(10)
STEPS = {"delta": 0.1, "step_size": 0.1, "record_every": 2}
SAMPLES = np.array([[0.5], [0.6]])


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bumps.midpoints(0), r"n: expected an integer >= 1, got 0"),
        (
            lambda: bumps.mixture([[0.5, 0.5]], X1, 0.1),
            r"x: expected 1 columns, got shape \(1, 2\)",
        ),
        (
            lambda: bumps.mixture(X1, [[1.5]], 0.1),
            r"centres: expected points of .*, got 1 outside",
        ),
        (lambda: bumps.risk(X1, F1, 0.0), r"delta: expected a finite number > 0, got 0.0"),
        (lambda: bumps.risk(X1, F1, 1.5), r"delta: expected a number <= 1, .*got 1.5"),
        (
            lambda: bumps.risk([[0.5, 0.5]], F1, 0.1),
            r"target: expected n\^2 values, .*got 10",
        ),
        (
            lambda: bumps.flow(X1, F1, steps=3, **STEPS),
            r"record_every: expected a divisor .*got 2",
        ),
        (
            lambda: bumps.flow(X1, F1, steps=2, viscosity=0.1, **STEPS),
            r"key: expected a random key for a viscosity > 0, got None",
        ),
        (
            lambda: bumps.sgd(X1, [[2.0]], [1.0], F1, **STEPS),
            r"x: expected points .*got 1 outside",
        ),
        (
            lambda: bumps.sgd(X1, [[0.5, 0.5]], [1.0], F1, **STEPS),
            r"x: expected 1 columns, got shape \(1, 2\)",
        ),
        (
            lambda: bumps.sgd(X1, SAMPLES, [np.inf, 1.0], F1, **STEPS),
            r"y: expected finite entries, got 1 nan or inf",
        ),
        (
            lambda: bumps.noise_floor(X1, 9, delta=0.1, step_size=0.1, variance=-1.0),
            r"variance: expected a finite number > 0, got -1.0",
        ),
        (
            lambda: bumps.porous_medium(F1, F1[1:], [0, 1]),
            r"density: expected 9 cells, got 10",
        ),
        (
            lambda: bumps.porous_medium(-F1, F1, [0, 1]),
            r"density: expected no negative .*got -1",
        ),
        (
            lambda: bumps.porous_medium(F1, F1, [1, 2]),
            r"times: expected at least two, .*got \[1",
        ),
        (
            lambda: bumps.porous_medium(F1, F1, [0, 1], viscosity=-1.0),
            r"viscosity: expected a finite number >= 0, got -1.0",
        ),
        (
            lambda: bumps.slowest_rate(F1 - 1),
            r"target: expected two or more positive .*got \[0",
        ),
        (
            lambda: bumps.transport_distance([[0.5, 0.5]], F1),
            r"centres: expected one column, got",
        ),
        (
            lambda: bumps.transport_distance(X1, 0 * F1),
            r"density: expected some mass .*got \[0",
        ),
        (lambda: bumps.concave(X1, 13.0), r"alpha: expected at most 12/d = 12, got 13"),
        (lambda: bumps.two_peaks([[2.0]], 0.1), r"x: expected points of .*got 1 outside"),
        (lambda: bumps.two_peaks(X1, 1.0), r"valley: expected a number < 1, got 1.0"),
        (
            lambda: bumps.box(0.5, 0.5, 9),
            r"left: expected 0 <= left < right <= 1, got 0.5 and 0.5",
        ),
        (
            lambda: bumps.noisy_samples(0, np.sum, 1, 1, 0.1),
            r"key: expected one random key, .*got 0",
        ),
    ],
)
def test_bad_input_raises_an_error_that_names_it_what_was_expected_and_what_came(call, message):
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        call()
