"""Two-layer networks as means over neurons: loss, training, dropping, and the path."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special

from ntk_utils.mean_field import dropout

DIM = 4
TEACHER = dropout.Teacher([1.0, -0.5], np.array([[2.0, 0, 0, 0], [0, 1, 1, 0]]))
SAMPLES = dropout.Samples(
    np.random.default_rng(0).normal(size=(30, DIM)), np.random.default_rng(1).normal(size=30)
)
LAWS = [TEACHER, SAMPLES]


def network(n=6, seed=0, scale=1.0):
    return dropout.draw_network(jax.random.key(seed), n, DIM, scale=scale)


def textbook_outputs(net, x):
    """f at each row of x, neuron by neuron."""
    s = scipy.special.erf(np.asarray(x) @ np.asarray(net.w).T / np.sqrt(2))
    return net.scale * (s * np.asarray(net.a)).mean(axis=1)


def many_samples(law, n=200_000, seed=5):
    return tuple(map(np.asarray, dropout.draw_samples(law, jax.random.key(seed), n)))


def same(a, b):
    for u, v in zip(a, b, strict=True):
        np.testing.assert_allclose(u, v, rtol=1e-10, atol=1e-13)


# --- networks, laws and the loss ------------------------------------------------------------------


def test_the_teachers_moments_and_loss_are_means_over_many_samples():
    x, y = many_samples(TEACHER)
    net = network()
    exact = dropout.moments(TEACHER, net.w)
    same_law = dropout.moments(dropout.Samples(x, y), net.w)
    for a, b in zip(exact, same_law, strict=True):
        np.testing.assert_allclose(a, b, atol=0.01)
    assert dropout.loss(net, TEACHER) == pytest.approx(
        ((y - textbook_outputs(net, x)) ** 2).mean(), rel=0.01
    )


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_loss_over_samples_is_their_mean_squared_error_and_the_form_of_the_moments(scale):
    net = network(scale=scale)
    expected = ((SAMPLES.y - textbook_outputs(net, SAMPLES.x)) ** 2).mean()
    assert dropout.loss(net, SAMPLES) == pytest.approx(expected, rel=1e-12)
    for law in LAWS:
        g, h, c = dropout.moments(law, net.w)
        p = scale * net.a / len(net.a)
        assert dropout.loss(net, law) == pytest.approx(float(p @ g @ p - 2 * p @ h + c), rel=1e-12)


def test_a_network_that_is_the_teacher_has_no_loss():
    copy = dropout.Network(2 * np.array(TEACHER.b), TEACHER.v)
    assert dropout.loss(copy, TEACHER) == pytest.approx(0, abs=1e-14)


def test_the_distance_is_the_root_mean_square_of_the_difference():
    x, _ = many_samples(TEACHER)
    first, second = network(6), network(9, 1, 2.0)
    gap = textbook_outputs(first, x) - textbook_outputs(second, x)
    for law, mean_square in (
        (TEACHER, (gap**2).mean()),
        (
            SAMPLES,
            (
                (textbook_outputs(first, SAMPLES.x) - textbook_outputs(second, SAMPLES.x)) ** 2
            ).mean(),
        ),
    ):
        assert dropout.distance(first, second, law) == pytest.approx(np.sqrt(mean_square), rel=0.01)
    assert dropout.distance(first, first, TEACHER) == pytest.approx(0, abs=1e-7)


def test_labels_of_drawn_samples_are_the_teachers_and_rows_of_a_data_set_keep_their_labels():
    x, y = many_samples(TEACHER, 50)
    expected = scipy.special.erf(x @ np.asarray(TEACHER.v).T / np.sqrt(2)) @ np.asarray(TEACHER.b)
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    x, y = many_samples(SAMPLES, 50)
    rows = [np.flatnonzero((SAMPLES.x == row).all(axis=1))[0] for row in x]
    np.testing.assert_array_equal(y, SAMPLES.y[rows])
    assert len(set(rows)) > 15


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_a_shared_start_leaves_the_law_of_one_neuron_and_makes_neurons_dependent(shared):
    nets = [
        dropout.draw_network(jax.random.key(seed), 2, DIM, shared=shared) for seed in range(800)
    ]
    w, a = (
        np.stack([np.asarray(field) for field in column])
        for column in list(zip(*nets, strict=True))[1::-1]
    )
    assert DIM * w.var() == pytest.approx(1, abs=0.06)
    assert DIM * (w[:, 0] * w[:, 1]).mean() == pytest.approx(shared, abs=0.07)
    assert a.var() == pytest.approx(1 / 3, abs=0.02)
    assert abs(np.corrcoef(a.T)[0, 1]) < 0.12


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("law", LAWS)
def test_a_step_of_the_flow_is_the_gradient_of_half_the_loss_by_finite_differences(law, scale):
    net, eps = network(scale=scale), 1e-5
    end = dropout.flow(net, law, step_size=1e-3, steps=1)[-1]
    for i, j in ((0, None), (3, None), (0, 1), (5, 2)):

        def moved(by, i=i, j=j):
            a, w = np.array(net.a), np.array(net.w)
            if j is None:
                a[i] += by
            else:
                w[i, j] += by
            return dropout.loss(dropout.Network(a, w, scale), law) / 2

        slope = (moved(eps) - moved(-eps)) / (2 * eps)
        step = end.a[i] - net.a[i] if j is None else end.w[i, j] - net.w[i, j]
        assert float(step) / 1e-3 == pytest.approx(-len(net.a) / scale**2 * slope, rel=1e-5)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_step_of_sgd_follows_its_formula(scale):
    net, x, y = network(scale=scale), np.array([[0.3, -1.0, 0.5, 2.0]]), np.array([0.7])
    end = dropout.sgd(net, x, y, step_size=0.01)[-1]
    z = np.asarray(net.w) @ x[0]
    error = 0.7 - textbook_outputs(net, x)[0]
    slope = np.sqrt(2 / np.pi) * np.exp(-(z**2) / 2)
    a = net.a + 0.01 / scale * error * scipy.special.erf(z / np.sqrt(2))
    w = net.w + 0.01 / scale * error * (net.a * slope)[:, None] * x
    same(end[:2], (a, w))
    assert end.scale == scale


def test_the_flow_converges_to_what_an_integrator_of_scipy_finds_at_first_order():
    net = network()
    flat = lambda n: np.concatenate([n.a, np.ravel(n.w)])  # noqa: E731
    n = len(net.a)

    @jax.jit
    @jax.grad
    def gradient(theta):
        a, w = theta[:n], theta[n:].reshape(n, DIM)
        g, h, c = dropout.moments(TEACHER, w)
        return (a @ g @ a / n**2 - 2 * a @ h / n + c) / 2

    velocity = lambda _, theta: -n * np.asarray(gradient(jnp.asarray(theta)))  # noqa: E731
    exact = scipy.integrate.solve_ivp(velocity, (0, 4), flat(net), rtol=1e-9, atol=1e-11).y[:, -1]
    errors = [
        abs(flat(dropout.flow(net, TEACHER, step_size=4 / k, steps=k)[-1]) - exact).max()
        for k in (40, 80, 160)
    ]
    assert errors[-1] < 0.02
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx([1, 1], abs=0.15)


def test_the_mean_step_of_sgd_is_that_of_the_flow():
    net, eps, n = network(), 1e-9, 40_000  # steps so small that all are taken at the start
    x, y = many_samples(TEACHER, n)
    end, of_flow = (
        dropout.sgd(net, x, y, step_size=eps)[-1],
        dropout.flow(net, TEACHER, step_size=n * eps, steps=1)[-1],
    )
    for start, u, v in zip(net[:2], end[:2], of_flow[:2], strict=True):
        drift = v - start
        assert abs(u - start - drift).max() < 0.06 * abs(drift).max()


def test_smaller_steps_of_sgd_end_closer_to_the_flow_and_a_few_reused_samples_do_not():
    net = network(40)
    of_flow = dropout.flow(net, TEACHER, step_size=0.02, steps=250)[-1]
    gaps = []
    for alpha, pool in ((0.05, None), (0.002, None), (0.002, 10)):
        x, y = many_samples(TEACHER, round(5 / alpha))
        rows = np.arange(len(y)) % (pool or len(y))
        gaps.append(
            dropout.distance(
                dropout.sgd(net, x[rows], y[rows], step_size=alpha)[-1], of_flow, TEACHER
            )
        )
    assert gaps[1] < gaps[0] / 2
    assert gaps[2] > 2 * gaps[1]


def test_networks_on_the_way_are_those_of_a_run_that_records_more_often():
    net, (x, y) = network(), many_samples(TEACHER, 60)
    often, seldom = (dropout.sgd(net, x, y, step_size=0.01, record_every=n) for n in (10, 30))
    assert len(often) == 7
    for u, v in zip(often[::3], seldom, strict=True):
        same(u, v)
    same(dropout.sgd(net, x, y, step_size=0.01)[-1], often[-1])
    often, seldom = (
        dropout.flow(net, SAMPLES, step_size=0.01, steps=20, record_every=n) for n in (5, 20)
    )
    same(often[-1], seldom[-1])
    losses = [dropout.loss(n, SAMPLES) for n in often]
    assert (np.diff(losses) < 0).all()


@pytest.mark.parametrize("law", LAWS)
def test_training_up_to_a_time_is_sgd_by_samples_of_the_law_each_used_once(law):
    net, key = network(), jax.random.key(2)
    end = dropout.train(net, law, key, time=0.4, step_size=0.01)
    x, y = dropout.draw_samples(law, key, 40)
    same(end, dropout.sgd(net, x, y, step_size=0.01)[-1])
    same(dropout.train(net, law, key, time=0.004, step_size=0.01), net)


def test_few_samples_are_used_over_and_over_and_lead_elsewhere():
    net, key = network(), jax.random.key(2)
    once = dropout.train(net, TEACHER, key, time=0.4, step_size=0.01)
    reused = dropout.train(net, TEACHER, key, time=0.4, step_size=0.01, n_samples=15)
    x, y = dropout.draw_samples(TEACHER, key, 15)
    rows = np.array([*range(15), *range(15), *range(10)])
    same(reused, dropout.sgd(net, x[rows], y[rows], step_size=0.01)[-1])
    assert dropout.distance(once, reused, TEACHER) > 1e-3


# --- dropping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("law", LAWS)
def test_a_change_is_that_of_the_network_of_the_kept_neurons(law, scale):
    net = network(scale=scale)
    subsets = np.array([[1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1]], dtype=bool)
    expected = [
        dropout.loss(dropout.Network(net.a[kept], net.w[kept], scale), law) - dropout.loss(net, law)
        for kept in subsets
    ]
    np.testing.assert_allclose(dropout.dropout_changes(net, law, subsets), expected, atol=1e-13)


def test_random_subsets_have_m_neurons_and_each_neuron_is_kept_equally_often():
    subsets = dropout.random_subsets(jax.random.key(0), 7, 3, 7000)
    assert (subsets.sum(axis=1) == 3).all()
    np.testing.assert_allclose(subsets.mean(axis=0), 3 / 7, atol=0.025)
    pairs = (subsets.T.astype(float) @ subsets / 7000)[~np.eye(7, dtype=bool)]
    np.testing.assert_allclose(pairs, 3 * 2 / (7 * 6), atol=0.025)


def test_neighbours_are_next_to_each_other_in_the_cyclic_order_of_their_values():
    subsets = dropout.neighbour_subsets([0.3, -2.0, 5.0, 0.1, 1.0], 2)
    # in increasing order: neurons 1, 3, 0, 4, 2
    pairs = [set(np.flatnonzero(kept)) for kept in subsets]
    assert pairs == [{1, 3}, {3, 0}, {0, 4}, {4, 2}, {2, 1}]


@pytest.mark.parametrize("kept", [1, 4, 9])
def test_every_neuron_has_equally_many_blocks_and_neighbours_more_in_common_than_others(kept):
    values = np.random.default_rng(kept).normal(size=9)
    subsets = dropout.neighbour_subsets(values, kept).astype(int)
    assert (subsets.sum(axis=0) == kept).all()
    assert (subsets.sum(axis=1) == kept).all()
    in_common = (subsets.T @ subsets)[np.ix_(np.argsort(values), np.argsort(values))]
    assert (np.diff(in_common[0, :5]) <= 0).all()
    assert in_common[0, 1] == in_common[0, 8] >= kept - 1


def test_the_measured_mean_absolute_change_is_that_over_all_subsets_up_to_scatter():
    net = network(8, scale=2.0)
    masks = np.array([np.isin(range(8), c) for c in itertools.combinations(range(8), 3)])
    changes = dropout.dropout_changes(net, TEACHER, masks)
    measured = dropout.mean_absolute_change(net, TEACHER, 3, jax.random.key(0), n_subsets=20_000)
    assert measured == pytest.approx(abs(changes).mean(), rel=0.03)
    assert abs(abs(changes.mean()) / abs(changes).mean() - 1) > 0.06


@pytest.mark.parametrize("kept", [2, 5])
@pytest.mark.parametrize("law", LAWS)
def test_mean_and_first_order_spread_of_the_change_are_exact_over_all_subsets(law, kept):
    net = network(7, scale=2.0)
    masks = np.array([np.isin(range(7), c) for c in itertools.combinations(range(7), kept)])
    promised = dropout.change_law(net, law, kept)
    assert dropout.dropout_changes(net, law, masks).mean() == pytest.approx(promised.mean, rel=1e-9)
    g, h, _ = map(np.asarray, dropout.moments(law, net.w))
    a = 2.0 * np.asarray(net.a)
    p = a / 7
    lots = a * masks / kept - p
    first_order = 2 * lots @ (g @ p - h)
    assert first_order.std() == pytest.approx(promised.sd_linear, rel=1e-9)


def test_the_mean_absolute_change_is_predicted_before_and_after_training():
    start = network(200)
    end = dropout.flow(start, TEACHER, step_size=0.2, steps=300)[-1]
    for net in (start, end):
        for kept in (20, 60):
            subsets = dropout.random_subsets(jax.random.key(kept), 200, kept, 4000)
            measured = abs(dropout.dropout_changes(net, TEACHER, subsets)).mean()
            predicted = dropout.change_law(net, TEACHER, kept).mean_absolute
            assert measured == pytest.approx(predicted, rel=0.04)


def test_the_prediction_hardly_depends_on_how_many_modes_are_followed_one_by_one(monkeypatch):
    net = dropout.flow(network(60), TEACHER, step_size=0.2, steps=100)[-1]
    of_all = dropout.change_law(net, TEACHER, 20).mean_absolute
    monkeypatch.setattr(dropout, "_LARGEST", 2)
    of_two = dropout.change_law(net, TEACHER, 20).mean_absolute
    assert of_two == pytest.approx(of_all, rel=0.04)
    assert of_two != of_all


def test_a_subset_of_all_neurons_changes_nothing():
    promised = dropout.change_law(network(), TEACHER, 6)
    assert promised == pytest.approx((0, 0, 0), abs=1e-14)


# --- the laws of neurons --------------------------------------------------------------------------


def with_weights(w):
    return dropout.Network(np.zeros(len(w)), w)


def test_overlaps_that_are_moved_by_a_constant_are_that_far_apart_in_each_direction():
    w = np.asarray(network(7).w)
    moved = with_weights(w[::-1] + np.array([0.5, 0.0, -2.0, 1.0]))
    for direction, gap in ((0, 0.5), (1, 0.0), (2, 2.0), (3, 1.0)):
        v = 3 * np.eye(DIM)[direction : direction + 1]
        assert dropout.overlap_distance([with_weights(w)], [moved], v) == pytest.approx(gap)
    of_all = dropout.overlap_distance([with_weights(w)], [moved], np.eye(DIM))
    assert of_all == pytest.approx(3.5 / 4)


def test_the_overlap_distance_is_the_mean_over_all_pairs_of_the_integral_of_its_formula():
    ours, theirs = [network(5, 1), network(8, 2)], [network(6, s) for s in (3, 4, 5)]
    v = np.array([[1.0, 2.0, 0.0, -1.0]])
    z, distances = np.linspace(-6, 6, 120_001), []
    for pair in itertools.product(ours, theirs):
        overlaps = [np.sort(np.asarray(n.w) @ v[0] / np.sqrt(6)) for n in pair]
        f, g = (np.searchsorted(o, z, side="right") / len(o) for o in overlaps)
        distances.append(abs(f - g).sum() * (z[1] - z[0]))
    assert dropout.overlap_distance(ours, theirs, v) == pytest.approx(np.mean(distances), rel=1e-3)


def test_independent_draws_of_one_law_come_closer_and_dependent_ones_do_not():
    def gap(n, shared):
        draws = [dropout.draw_network(jax.random.key(s), n, DIM, shared=shared) for s in range(12)]
        return dropout.overlap_distance(draws[:6], draws[6:], np.eye(DIM))

    assert gap(1600, 0.0) < 0.4 * gap(100, 0.0)  # 1/4 by n^(-1/2)
    assert gap(1600, 0.5) > 0.7 * gap(100, 0.5)


# --- the path -------------------------------------------------------------------------------------


def test_the_corners_are_the_ends_and_the_half_networks():
    first, second = network(6, 1), network(6, 2)
    corners = dropout.dropout_path(first, second)
    same(corners[0], first)
    same(corners[-1], second)
    half = dropout.loss(dropout.Network(first.a[:3], first.w[:3]), TEACHER)
    other_half = dropout.loss(dropout.Network(second.a[3:], second.w[3:]), TEACHER)
    at_corners = [dropout.loss(corner, TEACHER) for corner in corners[1:-1]]
    np.testing.assert_allclose(at_corners, [half, half, other_half, other_half], rtol=1e-12)
    ends = dropout.loss(first, TEACHER), dropout.loss(second, TEACHER)
    expected = max(half, other_half, *ends) - max(ends)
    assert dropout.path_excess(first, second, TEACHER) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("law", LAWS)
def test_along_the_path_the_loss_is_flat_or_convex_and_below_its_largest_corner(law, seed):
    corners = dropout.dropout_path(network(8, seed, 4.0), network(8, seed + 10, 4.0))
    pieces = dropout.losses_along(corners, law, 20)
    assert pieces.max() <= pieces[::20].max() + 1e-12
    for silent in (1, 3):
        piece = pieces[20 * silent : 20 * silent + 21]
        np.testing.assert_allclose(piece, piece[0], rtol=1e-12)
    for moving in (0, 2, 4):
        assert (np.diff(pieces[20 * moving : 20 * moving + 21], 2) > 0).all()


def test_losses_along_are_those_of_the_networks_in_between():
    first, second = network(6, 1), network(6, 2)
    losses = dropout.losses_along((first, second), TEACHER, 4)
    for i in range(5):
        mixed = [u + i / 4 * (v - u) for u, v in zip(first[:2], second[:2], strict=True)]
        expected = dropout.loss(dropout.Network(*mixed), TEACHER)
        assert losses[i] == pytest.approx(expected, rel=1e-12)


def test_a_reordered_network_is_found_again_and_its_function_stays():
    net = network(30)
    other = dropout.shuffled(net, jax.random.key(3))
    assert not np.allclose(net.a, other.a)
    assert dropout.loss(other, TEACHER) == pytest.approx(dropout.loss(net, TEACHER), rel=1e-12)
    same(dropout.aligned(net, other), net)


def test_the_aligned_network_is_the_closest_of_all_orders():
    first, second = network(5, 1), network(5, 2)
    theta, moved = (np.column_stack([n.a, n.w]) for n in (first, second))
    closest = min(
        ((theta - moved[list(order)]) ** 2).sum() for order in itertools.permutations(range(5))
    )
    found = dropout.aligned(first, second)
    assert ((theta - np.column_stack([found.a, found.w])) ** 2).sum() == pytest.approx(closest)


def test_silent_neurons_leave_the_function_as_it_is_but_not_what_dropping_does():
    few = network(6)
    padded = dropout.with_silent(few, 60)
    assert len(padded.a) == 60
    assert dropout.distance(few, padded, TEACHER) == pytest.approx(0, abs=1e-7)
    assert (
        dropout.change_law(padded, TEACHER, 30).mean
        > 3 * dropout.change_law(network(60), TEACHER, 30).mean
    )


# --- the door -------------------------------------------------------------------------------------

NET, KEY = dropout.Network([1.0, 2.0], [[1.0], [2.0]]), jax.random.key(0)
LAW = dropout.Teacher([1.0], [[1.0]])
WIDE = dropout.Network([1.0, 2.0], [[1.0, 0.0], [2.0, 0.0]])


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dropout.draw_network(KEY, 0, 2), r"n: expected an integer >= 1, got 0"),
        (lambda: dropout.draw_network(0, 2, 2), r"key: expected one random key, .*got 0"),
        (
            lambda: dropout.draw_network(KEY, 2, 2, shared=1.5),
            r"shared: expected a finite number from 0 to 1, got 1.5",
        ),
        (lambda: dropout.loss(WIDE, LAW), r"network: expected weights w of 1 columns, .*\(2, 2\)"),
        (lambda: dropout.loss(NET, (1, 2)), r"law: expected Teacher or Samples, got tuple"),
        (lambda: dropout.loss((1, 2), LAW), r"network: expected Network, got tuple"),
        (
            lambda: dropout.loss(dropout.Network([1.0], [[1.0], [2.0]]), LAW),
            r"network: expected as many weights as rows, got 1 and 2",
        ),
        (
            lambda: dropout.loss(NET._replace(scale=0.0), LAW),
            r"network.scale: expected a finite number > 0, got 0.0",
        ),
        (
            lambda: dropout.loss(NET, dropout.Samples([[np.nan]], [1.0])),
            r"law.x: expected finite entries, got 1 nan or inf",
        ),
        (lambda: dropout.moments(LAW, [[1.0, 2.0]]), r"w: expected weights w of 1 columns"),
        (lambda: dropout.distance(NET, WIDE, LAW), r"other: expected weights w of 1 columns"),
        (
            lambda: dropout.sgd(NET, [[1.0], [2.0]], [1.0], step_size=0.1),
            r"y: expected 2 labels, one a sample, got 1",
        ),
        (
            lambda: dropout.sgd(
                NET, [[1.0], [2.0], [3.0]], [1.0] * 3, step_size=0.1, record_every=2
            ),
            r"record_every: expected a divisor of the 3 steps, got 2",
        ),
        (
            lambda: dropout.sgd(NET, [[1.0, 2.0]], [1.0], step_size=0.1),
            r"network: expected weights w of 2 columns",
        ),
        (
            lambda: dropout.flow(NET, LAW, step_size=1e200, steps=10),
            r"step_size: expected one at which training is stable, got 1e\+200: weights overflowed",
        ),
        (lambda: dropout.random_subsets(KEY, 2, 3, 1), r"kept: expected at most 2, .*got 3"),
        (
            lambda: dropout.dropout_changes(NET, LAW, [[False, False]]),
            r"subsets: expected rows of 2 booleans, not all False, got bool of shape \(1, 2\)",
        ),
        (
            lambda: dropout.dropout_changes(NET, LAW, [[0, 1]]),
            r"subsets: expected rows of 2 booleans, .*got int64",
        ),
        (
            lambda: dropout.train(NET, LAW, KEY, time=-1.0, step_size=0.1),
            r"time: expected a finite number >= 0, got -1.0",
        ),
        (
            lambda: dropout.train(NET, LAW, KEY, time=1.0, step_size=0.1, n_samples=0),
            r"n_samples: expected an integer >= 1, got 0",
        ),
        (
            lambda: dropout.train(WIDE, LAW, KEY, time=0.0, step_size=0.1),
            r"network: expected weights w of 1 columns",
        ),
        (
            lambda: dropout.neighbour_subsets([1.0, 2.0], 3),
            r"kept: expected at most 2, the number of neurons, got 3",
        ),
        (
            lambda: dropout.neighbour_subsets([[1.0, 2.0]], 1),
            r"values: expected an array of rank 1, got shape \(1, 2\)",
        ),
        (
            lambda: dropout.mean_absolute_change(NET, LAW, 3, KEY, n_subsets=5),
            r"kept: expected at most 2, .*got 3",
        ),
        (
            lambda: dropout.mean_absolute_change(WIDE, LAW, 1, KEY, n_subsets=5),
            r"network: expected weights w of 1 columns",
        ),
        (
            lambda: dropout.overlap_distance([], [NET], [[1.0]]),
            r"networks: expected at least one network, got none",
        ),
        (
            lambda: dropout.overlap_distance([NET], [NET, WIDE], [[1.0]]),
            r"others\[1\]: expected weights w of 1 columns",
        ),
        (
            lambda: dropout.overlap_distance([NET], [NET], [[1.0], [0.0]]),
            r"v: expected directions, got 1 zero rows",
        ),
        (lambda: dropout.change_law(NET, LAW, 3), r"kept: expected at most 2, .*got 3"),
        (
            lambda: dropout.change_law(dropout.Network([1.0], [[1.0]]), LAW, 1),
            r"network: expected at least two neurons, got one",
        ),
        (lambda: dropout.with_silent(NET, 1), r"n: expected at least 2, .*got 1"),
        (
            lambda: dropout.dropout_path(NET, WIDE),
            r"other: expected weights of shape \(2, 1\) and scale 1, got \(2, 2\) and 1",
        ),
        (
            lambda: dropout.dropout_path(*2 * [dropout.Network([1.0], [[1.0]])]),
            r"network: expected an even number of neurons, got 1",
        ),
        (lambda: dropout.losses_along((NET,), LAW, 2), r"corners: expected at least two, got 1"),
        (
            lambda: dropout.aligned(NET, NET._replace(scale=2.0)),
            r"other: expected weights of shape \(2, 1\) and scale 1, got \(2, 1\) and 2",
        ),
    ],
)
def test_bad_input_raises_an_error_that_names_it_what_was_expected_and_what_came(call, message):
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        call()
