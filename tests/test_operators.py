import jax
import jax.numpy as jnp
import lineax
import numpy as np
import pytest

from ntk_utils import (
    Network,
    digits,
    empirical_ntk,
    gaussian,
    init_params,
    largest_eigenvalue,
    ntk_diagonal,
    ntk_operator,
    ntk_solve,
    spectrum,
    trace_of_square,
    uniform_sphere,
)

ARCHITECTURES = [(5, 1), (5, 7, 4, 3, 1)]
N_SAMPLES = 30


def draw(widths, n_samples=N_SAMPLES, seed=0):
    key_x, key_w = jax.random.split(jax.random.key(seed))
    params = init_params(Network(widths, "he"), key_w)
    x = digits(n_samples) if widths[0] == 64 else gaussian(key_x, n_samples, widths[0])
    return params, x, np.asarray(empirical_ntk(params, x))


@pytest.mark.parametrize("widths", ARCHITECTURES)
def test_the_operator_is_the_kernel(widths):
    params, x, k = draw(widths)
    operator = ntk_operator(params, x)
    assert operator.in_size() == operator.out_size() == N_SAMPLES
    np.testing.assert_allclose(operator.as_matrix(), k, rtol=0, atol=1e-13 * k.max())
    v = np.linspace(-1, 1, N_SAMPLES)
    np.testing.assert_allclose(operator.mv(jnp.asarray(v)), k @ v, rtol=0, atol=1e-12 * k.max())
    assert lineax.is_positive_semidefinite(operator)


def test_a_product_needs_memory_for_the_features_and_not_for_the_kernel():
    n_samples, widths = 20_000, (5, 40, 4, 1)
    params, x, _ = draw(widths)
    x = jnp.tile(x, (n_samples // N_SAMPLES + 1, 1))[:n_samples]

    @jax.jit
    def product(params, x, v):
        return ntk_operator(params, x).mv(v)

    compiled = product.lower(params, x, x[:, 0]).compile()
    held = 8 * n_samples * sum(widths)
    assert compiled.memory_analysis().temp_size_in_bytes < 8 * held < 8 * n_samples**2 / 20


@pytest.mark.parametrize("widths", ARCHITECTURES)
def test_the_diagonal_and_so_the_trace_is_exact(widths):
    params, x, k = draw(widths)
    np.testing.assert_allclose(ntk_diagonal(params, x), np.diagonal(k), rtol=1e-13)


@pytest.mark.parametrize("widths", ARCHITECTURES)
def test_the_largest_eigenvalue_is_that_of_the_dense_kernel(widths):
    params, x, k = draw(widths)
    assert largest_eigenvalue(ntk_operator(params, x)) == pytest.approx(spectrum(k)[-1], rel=1e-9)


def test_two_samples_are_enough_for_a_largest_eigenvalue():
    params, x, k = draw((5, 40, 1), n_samples=2)
    assert largest_eigenvalue(ntk_operator(params, x)) == pytest.approx(spectrum(k)[-1], rel=1e-9)


def test_the_estimated_trace_of_the_square_is_right_on_average_and_says_how_wrong_it_is():
    params, x, k = draw((5, 40, 4, 1))
    operator, exact = ntk_operator(params, x), (k**2).sum()
    few, many = (trace_of_square(operator, jax.random.key(1), n_probes=n) for n in (16, 144))
    assert abs(many.value - exact) < 4 * many.standard_error < 0.6 * exact
    assert 1.5 < few.standard_error / many.standard_error < 6  # √(144/16) = 3


@pytest.fixture(scope="module")
def on_digits():
    """A kernel on digits, and solutions with preconditioners of growing rank."""
    params, x, k = draw((64, 1000, 64, 1), n_samples=200)
    y = np.sign(np.arange(200) - 99.5)
    ranks = (1, 50, 1000)
    return k, y, [ntk_solve(params, x, y, rank=rank, tolerance=1e-10) for rank in ranks]


def test_solutions_are_those_of_the_dense_kernel_whatever_the_preconditioner(on_digits):
    k, y, solutions = on_digits
    exact = np.linalg.solve(k, y)
    for found in solutions:
        residual = np.linalg.norm(k @ found.value - y) / np.linalg.norm(y)
        assert residual < 1e-9
        assert found.residual == pytest.approx(residual, rel=1e-2, abs=1e-13)
        assert np.linalg.norm(found.value - exact) < 1e-6 * np.linalg.norm(exact)


def test_a_larger_preconditioner_needs_fewer_steps(on_digits):
    few, some, all_samples = (found.n_steps for found in on_digits[2])
    assert few > 1.5 * some > 1.5**2 * all_samples


def test_a_solve_that_is_stopped_early_says_how_far_it_got():
    params, x, _ = draw((64, 400, 10, 1), n_samples=100)
    found = ntk_solve(params, x, np.arange(100.0), rank=1, max_steps=3)
    assert found.n_steps == 3
    assert found.residual > 1e-6


def test_a_repeated_sample_leaves_a_compatible_system_solvable():
    params, x, _ = draw((5, 400, 4, 1), n_samples=50)
    x = x.at[1].set(x[0])
    k = np.asarray(empirical_ntk(params, x))
    found = ntk_solve(params, x, k @ np.linspace(-1, 1, 50), rank=50)
    assert found.residual < 1e-7


def test_labels_of_0_have_the_solution_0():
    params, x, _ = draw((5, 40, 1))
    found = ntk_solve(params, x, np.zeros(N_SAMPLES))
    assert not found.value.any()
    assert found.residual == 0


# --- labels and precisions of every kind ----------------------------------------------------------


@pytest.fixture(scope="module")
def four_hundred():
    x = uniform_sphere(jax.random.key(0), 400, 10)
    params = init_params(Network((10, 200, 1), "he"), jax.random.key(1))
    signs = np.where(np.random.default_rng(0).random(400) < 0.5, -1.0, 1.0)
    return params, x, signs, np.asarray(empirical_ntk(params, x))


LABELS = {
    "-1 and 1": lambda signs: signs,
    "0 and 1": lambda signs: (signs + 1) / 2,
    "one 0": lambda signs: np.r_[0.0, signs[1:]],
    "one 1": lambda signs: np.r_[1.0, 0 * signs[1:]],
    "tiny": lambda signs: 1e-200 * (signs + 1),
    "huge": lambda signs: 1e200 * (signs + 1),
    "integers": lambda signs: (signs + 1).astype(int),
}


@pytest.mark.parametrize("name", LABELS)
def test_a_solve_stops_when_the_norm_of_its_residual_is_small_whatever_the_labels(
    name, four_hundred
):
    params, x, signs, k = four_hundred
    y = LABELS[name](signs)
    found = ntk_solve(params, x, y)
    assert found.residual < 2e-8
    assert found.n_steps < 100  # 39 for labels of -1 and 1
    size = np.abs(y).max()
    measured = np.linalg.norm(k @ (np.asarray(found.value) / size) - y / size)
    assert measured < 3e-8 * np.linalg.norm(y / size)


@pytest.mark.parametrize("size", [1e-100, 1e100])
def test_a_solve_is_the_same_at_any_scale_of_the_samples(size, four_hundred):
    params, x, signs, _ = four_hundred
    found, expected = ntk_solve(params, size * x, signs), ntk_solve(params, x, signs)
    assert abs(found.n_steps - expected.n_steps) <= 1
    scaled = np.asarray(found.value) * size * size
    np.testing.assert_allclose(scaled, expected.value, rtol=0, atol=1e-5 * abs(scaled).max())


def test_single_precision_weights_and_samples_give_the_numbers_of_their_float64_copies():
    params, x, _ = draw((5, 9, 1), n_samples=6)
    low = [np.asarray(w, np.float32) for w in params], np.asarray(x, np.float32)
    high = [w.astype(np.float64) for w in low[0]], low[1].astype(np.float64)
    expected = ntk_solve(*high, np.ones(6)).value
    for mixed in (low, (high[0], low[1])):
        np.testing.assert_array_equal(ntk_solve(*mixed, np.ones(6)).value, expected)
    largest = largest_eigenvalue(ntk_operator(*low))
    assert largest == largest_eigenvalue(ntk_operator(*high)) > 0


def test_the_largest_eigenvalue_of_a_kernel_of_0_is_0():
    dead, x = (-np.ones((3, 4)), np.ones((4, 1))), np.ones((6, 3))
    assert not np.asarray(empirical_ntk(dead, x)).any()
    assert largest_eigenvalue(ntk_operator(dead, x)) == 0


@pytest.mark.parametrize("size", [1e-150, 1e150])
def test_the_largest_eigenvalue_is_homogeneous_at_any_scale(size):
    params, x, k = draw((5, 7, 4, 3, 1))
    largest = largest_eigenvalue(ntk_operator(params, size * x)) / size / size
    assert largest == pytest.approx(np.linalg.eigvalsh(k)[-1], rel=1e-9)


def test_a_residual_worse_than_its_start_is_not_returned_in_silence(monkeypatch, four_hundred):
    params, x, signs, _ = four_hundred

    def diverges(*_, **__):
        return 1e6 * signs, 2000

    monkeypatch.setattr("scipy.sparse.linalg.cg", diverges)
    with pytest.warns(RuntimeWarning):
        found = ntk_solve(params, x, signs)
    assert not np.asarray(found.value).any()
    assert found.residual == 1
