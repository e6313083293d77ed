"""Generalised linear models at several nodes, and how they are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_utils import empirical_ntk, gaussian, init_params
from ntk_utils.networks import Network
from ntk_utils.quantization import problems
from ntk_utils.quantization.problems import Problem

SEEDS = range(3)
KEY = jax.random.key(0)
LOSSES = ["squared", "logistic"]
for_each_loss = pytest.mark.parametrize("loss", LOSSES)


def problem(loss="squared", seed=0, ridge=0.3, rows=(7, 5, 9), d=4):
    rng = np.random.default_rng(seed)
    shards = [(rng.standard_normal((m, d)), rng.integers(0, 2, m).astype(float)) for m in rows]
    return Problem(shards, loss=loss, ridge=ridge)


def textbook_value(p, x):
    """f, sample by sample."""
    total = 0.0
    for a, b in p.shards:
        z = jnp.asarray(a) @ x
        losses = (z - b) ** 2 / 2 if p.loss == "squared" else jnp.log1p(jnp.exp(z)) - b * z
        total += losses.mean() + p.ridge / 2 * (x @ x)
    return total / len(p.shards)


@for_each_loss
@pytest.mark.parametrize("seed", SEEDS)
def test_value_gradient_and_hessian_are_those_of_the_sum_over_samples(loss, seed):
    p, x = problem(loss, seed), jnp.asarray(np.random.default_rng(seed).standard_normal(4))
    f = lambda x: textbook_value(p, x)  # noqa: E731
    np.testing.assert_allclose(p.value(x), f(x), rtol=1e-12)
    np.testing.assert_allclose(p.gradient(x), jax.grad(f)(x), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(p.hessian(x), jax.hessian(f)(x), rtol=1e-10, atol=1e-13)


@for_each_loss
@pytest.mark.parametrize("seed", SEEDS)
def test_no_hessian_is_larger_than_the_majorant_which_is_met_at_zero(loss, seed):
    p, rng = problem(loss, seed), np.random.default_rng(seed)
    for x in rng.standard_normal((20, 4)) * 10.0 ** rng.uniform(-2, 2, (20, 1)):
        assert np.linalg.eigvalsh(p.majorant() - p.hessian(x))[0] >= -1e-12
    # both losses bend most at z = 0, where x = 0 puts every sample
    np.testing.assert_allclose(p.majorant(), p.hessian(np.zeros(4)), rtol=1e-12)


@for_each_loss
@pytest.mark.parametrize("seed", SEEDS)
def test_the_gradient_vanishes_at_the_minimum_and_nowhere_near(loss, seed):
    p = problem(loss, seed)
    x = p.minimum()
    assert np.linalg.norm(p.gradient(x)) < 1e-14
    assert np.linalg.norm(p.gradient(x + 1e-3)) > 1e-5


def test_the_logistic_loss_is_finite_where_its_exponentials_are_not():
    p = problem("logistic")
    x = np.full(4, 1e4)
    assert np.isfinite(p.value(x))
    assert np.isfinite(p.gradient(x)).all()
    assert np.isfinite(p.hessian(x)).all()


@pytest.mark.parametrize(("m", "n"), [(10, 2), (11, 4), (3, 3)])
def test_samples_are_dealt_each_once_and_as_equally_as_can_be(m, n):
    a, b = np.arange(2.0 * m).reshape(m, 2), np.arange(float(m))
    shards = problems.split(KEY, a, b, n)
    assert len(shards) == n
    sizes = [len(labels) for _, labels in shards]
    assert max(sizes) - min(sizes) <= 1
    rows, labels = (np.concatenate(parts) for parts in zip(*shards, strict=True))
    order = np.argsort(labels)
    assert np.array_equal(rows[order], a)
    assert np.array_equal(labels[order], b)


def test_another_key_deals_otherwise():
    a, b = np.arange(40.0).reshape(20, 2), np.arange(20.0)
    first, again, other = (problems.split(jax.random.key(i), a, b, 2)[0][1] for i in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("seed", SEEDS)
def test_least_squares_have_the_given_eigenvalues_at_any_number_of_nodes(seed):
    eigenvalues = np.array([5.0, 1.0, 1.0, 0.01])
    for n in (2, 5):
        p = problems.least_squares(jax.random.key(seed), eigenvalues, n, samples=8)
        assert [a.shape for a, _ in p.shards] == [(8, 4)] * n
        found = np.linalg.eigvalsh(p.majorant())
        np.testing.assert_allclose(found, sorted(eigenvalues), rtol=1e-10)
        np.testing.assert_allclose(p.hessian(np.ones(4)), p.majorant(), rtol=1e-10, atol=1e-13)


def test_the_unknowns_and_the_noise_of_least_squares_have_variance_1():
    p = problems.least_squares(KEY, np.ones(300), 4, samples=1000)
    x = p.minimum()
    assert np.mean(x**2) == pytest.approx(1, abs=0.3)
    residuals = np.concatenate([a @ x - b for a, b in p.shards])
    assert np.mean(residuals**2) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("seed", SEEDS)
def test_kernel_regression_has_the_spectrum_of_the_ntk_and_predicts_as_its_linear_model(seed):
    keys = jax.random.split(jax.random.key(seed), 3)
    x, network = gaussian(keys[0], 8, 5), Network((5, 30, 1))
    k, y = np.asarray(empirical_ntk(init_params(network, keys[1]), x)), np.arange(8.0)
    p = problems.kernel_regression(keys[2], k, y, 4)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(p.majorant()), np.linalg.eigvalsh(k) / 8, rtol=1e-9
    )
    # K^(1/2) x* = y: all labels are fitted
    for a, b in p.shards:
        np.testing.assert_allclose(a @ p.minimum(), b, atol=1e-9)


@for_each_loss
@pytest.mark.parametrize("seed", SEEDS)
def test_a_bad_shard_has_its_directions_and_its_condition_number_over_the_factor(loss, seed):
    p = problem(loss, seed)
    bad = problems.with_bad_shard(p, 1e-3)
    (before, b), (after, same_b) = p.shards[0], bad.shards[0]
    assert np.linalg.cond(after) == pytest.approx(1e3 * np.linalg.cond(before), rel=1e-9)
    np.testing.assert_allclose(np.linalg.norm(after, 2), np.linalg.norm(before, 2), rtol=1e-12)
    gram = before.T @ before
    np.testing.assert_allclose(gram @ (after.T @ after), (after.T @ after) @ gram, atol=1e-10)
    assert np.array_equal(b, same_b)
    assert (bad.loss, bad.ridge) == (p.loss, p.ridge)
    for (a, b), (other_a, other_b) in zip(p.shards[1:], bad.shards[1:], strict=True):
        assert np.array_equal(a, other_a)
        assert np.array_equal(b, other_b)


def features(seed):
    """Of different means and scales, correlated, the third one constant."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((30, 4)) @ rng.standard_normal((4, 4))
    return mixed * [1, 10, 0, 0.1] + [5, -3, 7, 0]


@pytest.mark.parametrize("seed", SEEDS)
def test_standardised_features_have_mean_0_and_variance_1_and_a_constant_comes_last(seed):
    a = features(seed)
    *columns, last = problems.standardised(a).T
    assert np.array_equal(last, np.ones(30))
    np.testing.assert_allclose(np.mean(columns, axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(np.var(columns, axis=1), 1, rtol=1e-12)
    for column, k in zip(columns, (0, 1, 3), strict=True):
        assert np.corrcoef(column, a[:, k])[0, 1] == pytest.approx(1)


@pytest.mark.parametrize("seed", SEEDS)
def test_whitened_features_leave_nothing_to_precondition_and_span_what_they_did(seed):
    plain, white = (problems.standardised(features(seed), whiten=w) for w in (False, True))
    np.testing.assert_allclose(white.T @ white / 30, np.eye(4), atol=1e-12)
    assert np.linalg.cond(plain) > 1.5
    assert np.linalg.matrix_rank(np.hstack([plain, white])) == 4


A, B = np.ones((4, 2)), np.ones(4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Problem([(A, B)]), ValueError, "shards: expected at least two, got 1"),
        (lambda: Problem([(A, B), (A[:, :1], B)]), ValueError, "shards: expected matrices of one"),
        (lambda: Problem([(A, B), (A, B[:1])]), ValueError, r"shards\[1\]: expected 4 labels"),
        (lambda: Problem([(A, B), (A, 2 * B)], loss="logistic"), ValueError, "labels 0 and 1"),
        (lambda: Problem([(A, B)] * 2, ridge=-1.0), ValueError, "ridge: expected .* >= 0"),
        (lambda: Problem([(A, B)] * 2).value(B), ValueError, "x: expected 2 entries, got 4"),
        (lambda: Problem([(A, B)] * 2).minimum(), ValueError, "expected a positive definite"),
        (lambda: problems.split(KEY, A, B, 5), ValueError, "n: expected at most as many"),
        (lambda: problems.split(KEY, A, B[:3], 2), ValueError, "y: expected 4 labels"),
        (lambda: problems.split(0, A, B, 2), TypeError, "key: expected one random key"),
        (
            lambda: problems.least_squares(KEY, [1.0, 0.0], 2),
            ValueError,
            "eigenvalues: expected positive numbers, got 0",
        ),
        (
            lambda: problems.least_squares(KEY, np.ones(9), 2, samples=4),
            ValueError,
            "samples: expected n × samples >= d = 9, got 2 × 4",
        ),
        (
            lambda: problems.with_bad_shard(Problem([(A, B)] * 2), 1.0),
            ValueError,
            "factor: expected a number below 1, got 1",
        ),
        (
            lambda: problems.with_bad_shard(Problem([(A[:1], B[:1])] * 2), 0.1),
            ValueError,
            r"problem: expected two rows and columns at node 0, got \(1, 2\)",
        ),
        (
            lambda: problems.with_bad_shard([(A, B)], 0.1),
            TypeError,
            "problem: expected Problem, got list",
        ),
        (lambda: problems.standardised(B), ValueError, "a: expected"),
        (lambda: problems.standardised(A), ValueError, "a: expected a column that varies"),
        (
            lambda: problems.kernel_regression(KEY, np.diag([1.0, -1.0]), [1.0, 2.0], 2),
            ValueError,
            "k: expected no negative eigenvalue, got -1",
        ),
        (
            lambda: problems.kernel_regression(KEY, [[1.0, 1.0], [0.0, 1.0]], [1.0, 2.0], 2),
            ValueError,
            "k: expected a symmetric matrix",
        ),
    ],
)
def test_bad_input_is_named_with_what_was_expected_and_what_came(call, error, message):
    with pytest.raises(error, match=message):
        call()
