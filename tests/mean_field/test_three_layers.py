"""Networks of three layers as means over neurons: outputs, SGD, and dropping."""

import jax
import numpy as np
import pytest
from scipy.special import erf

from ntk_utils.mean_field import three_layers

DIM = 3
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, DIM)), RNG.normal(size=20)


def network(n=6, m=4, seed=1):
    rng = np.random.default_rng(seed)
    return three_layers.Network(
        rng.normal(size=(DIM, n)), 3 * rng.normal(size=(n, m)), rng.normal(size=m)
    )


def textbook_outputs(net, x):
    """f at each row of x, neuron by neuron."""
    f = np.zeros(len(x))
    for k, a in enumerate(net.a):
        mean = np.zeros(len(x))
        for j in range(len(net.w)):
            mean += net.w[j, k] * erf(x @ net.u[:, j] / np.sqrt(2)) / len(net.w)
        f += a * erf(mean / np.sqrt(2)) / len(net.a)
    return f


def test_outputs_and_loss_follow_their_formulas_neuron_by_neuron():
    net = network()
    f = textbook_outputs(net, X)
    np.testing.assert_allclose(three_layers.outputs(net, X), f, rtol=1e-12)
    assert three_layers.loss(net, X, Y) == pytest.approx(((Y - f) ** 2).mean(), rel=1e-12)


def test_weights_are_drawn_from_their_laws_each_from_its_own_key():
    keys = jax.random.split(jax.random.key(0), 3)
    u, w, a = map(np.asarray, three_layers.draw_network(keys, 400, 64))
    assert 64 * u.var() == pytest.approx(1, abs=0.03)
    assert w.var() == pytest.approx(1, abs=0.02)
    assert a.var() == pytest.approx(1 / 3, abs=0.04)
    assert abs(a).max() <= 1
    others = three_layers.draw_network([keys[0], keys[2], keys[1]], 400, 64)
    np.testing.assert_array_equal(others.u, u)
    assert not (others.w == w).any()
    assert not (others.a == a).any()


@pytest.mark.parametrize(("field", "at"), [("u", (1, 2)), ("w", (3, 1)), ("a", (2,))])
def test_a_step_of_sgd_is_the_gradient_by_finite_differences_times_the_numbers_of_neurons(
    field, at
):
    net, eps, size = network(6, 4), 1e-5, 1e-3
    x, y = X[:1], Y[:1]
    end = three_layers.sgd(net, x, y, step_size=size)

    def moved(by):
        weights = getattr(net, field).copy()
        weights[at] += by
        return (y[0] - textbook_outputs(net._replace(**{field: weights}), x)[0]) ** 2 / 2

    slope = (moved(eps) - moved(-eps)) / (2 * eps)
    step = (getattr(end, field)[at] - getattr(net, field)[at]) / size
    assert float(step) == pytest.approx(-{"u": 6, "w": 24, "a": 4}[field] * slope, rel=1e-6)


def test_steps_are_taken_one_after_the_other_in_the_order_of_the_samples():
    net = network()
    one_by_one = net
    for i in range(5):
        one_by_one = three_layers.sgd(one_by_one, X[i : i + 1], Y[i : i + 1], step_size=0.05)
    at_once = three_layers.sgd(net, X[:5], Y[:5], step_size=0.05)
    reversed_ = three_layers.sgd(net, X[4::-1], Y[4::-1], step_size=0.05)
    for u, v, w in zip(at_once, one_by_one, reversed_, strict=True):
        np.testing.assert_allclose(u, v, rtol=1e-12)
        assert abs(u - w).max() > 1e-6


def test_weights_move_as_far_in_wide_networks_as_in_narrow_ones():
    def moved(n):
        start = three_layers.draw_network(jax.random.split(jax.random.key(n), 3), n, DIM)
        x = RNG.normal(size=(400, DIM))
        end = three_layers.sgd(start, x, np.sin(x[:, 0]), step_size=0.01)
        return np.array([abs(u - v).mean() for u, v in zip(start, end, strict=True)])

    # under plain gradients without the factors they would move 1/8 and 1/64 as far
    assert (moved(160) > 0.5 * moved(20)).all()


def test_a_change_is_that_of_the_network_of_the_kept_neurons():
    net = network(6, 4)
    left = np.array([[1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1]], dtype=bool)
    right = np.array([[1, 0, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]], dtype=bool)
    expected = [
        three_layers.loss(three_layers.Network(net.u[:, i], net.w[i][:, j], net.a[j]), X, Y)
        - three_layers.loss(net, X, Y)
        for i, j in zip(left, right, strict=True)
    ]
    changes = three_layers.dropout_changes(net, X, Y, left, right)
    np.testing.assert_allclose(changes, expected, rtol=1e-10, atol=1e-13)
    assert abs(changes[0]) > 1e-3


def test_of_neurons_that_are_copies_of_one_any_half_does_what_all_do_and_of_others_not():
    net = network(4, 4)
    copies = three_layers.Network(
        np.repeat(net.u[:, :1], 4, axis=1), np.full((4, 4), 2.0), np.ones(4)
    )
    halves = np.array([[1, 1, 0, 0], [0, 1, 0, 1]], dtype=bool)
    changes = three_layers.dropout_changes(copies, X, Y, halves, halves)
    np.testing.assert_allclose(changes, 0, atol=1e-14)
    assert abs(three_layers.dropout_changes(net, X, Y, halves, halves)).min() > 1e-3


# --- the door -------------------------------------------------------------------------------------

NET, KEY = network(2, 2), jax.random.key(0)
ALL = np.ones((1, 2), dtype=bool)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: three_layers.draw_network([KEY, KEY], 2, 2),
            r"keys: expected three random keys, got 2",
        ),
        (
            lambda: three_layers.draw_network([KEY, KEY, 0], 2, 2),
            r"keys\[2\]: expected one random key, .*got 0",
        ),
        (
            lambda: three_layers.draw_network(7, 2, 2),
            r"keys: expected a sequence, got 7",
        ),
        (
            lambda: three_layers.draw_network([KEY] * 3, 0, 2),
            r"n: expected an integer >= 1, got 0",
        ),
        (
            lambda: three_layers.outputs((1, 2, 3), X),
            r"network: expected Network, got tuple",
        ),
        (
            lambda: three_layers.outputs(NET._replace(w=np.ones((2, 3))), X),
            r"network.w: expected shape \(2, 2\), got \(2, 3\)",
        ),
        (
            lambda: three_layers.outputs(NET._replace(a=[1.0, np.nan]), X),
            r"network.a: expected finite entries, got 1 nan or inf",
        ),
        (
            lambda: three_layers.outputs(NET, X[:, :2]),
            r"network.u: expected 2 rows, one for each entry of x, got shape \(3, 2\)",
        ),
        (lambda: three_layers.loss(NET, X, Y[:3]), r"y: expected 20 labels, one a sample, got 3"),
        (
            lambda: three_layers.sgd(NET, X, Y, step_size=0.0),
            r"step_size: expected a finite number > 0, got 0.0",
        ),
        (
            lambda: three_layers.sgd(NET, X, Y, step_size=1e300),
            r"step_size: expected one at which training is stable, got 1e\+300: weights overflowed",
        ),
        (
            lambda: three_layers.dropout_changes(NET, X, Y, ALL, ~ALL),
            r"other_subsets: expected rows of 2 booleans, not all False, got bool of shape \(1, 2",
        ),
        (
            lambda: three_layers.dropout_changes(NET, X, Y, ALL[:, :1], ALL),
            r"subsets: expected rows of 2 booleans, .*got bool of shape \(1, 1\)",
        ),
        (
            lambda: three_layers.dropout_changes(NET, X, Y, ALL, np.vstack([ALL, ALL])),
            r"other_subsets: expected 1 rows, got 2",
        ),
    ],
)
def test_bad_input_raises_an_error_that_names_it_what_was_expected_and_what_came(call, message):
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        call()
