import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.linalg
import truth
from hypothesis import given, settings

from ntk_utils import (
    Network,
    conditioning,
    empirical_ntk,
    feature_matrices,
    gaussian,
    init_params,
    limiting_ntk,
    lower_edge,
    rounding_error,
    smallest_eigenvalue,
    smallest_singular_value,
    spectrum,
)
from ntk_utils.spectra import certain_smallest_eigenvalue, eigenvalue_above_rounding

EPS = np.finfo(np.float64).eps

often = settings(max_examples=100, derandomize=True, deadline=None)
seeds = st.integers(0, 2**31 - 1)
spectra = hnp.arrays(np.float64, st.integers(1, 8), elements=st.floats(-10, 10, width=32))


def orthogonal(n, seed):
    """A random orthogonal matrix."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]


def symmetric(eigenvalues, seed=0):
    """A symmetric matrix with a random eigenbasis and these eigenvalues."""
    q = orthogonal(len(eigenvalues), seed)
    k = q * np.asarray(eigenvalues) @ q.T
    return (k + k.T) / 2


def with_singular_values(values, shape, seed=0):
    """A matrix of this shape with random singular vectors and these singular values."""
    middle = np.zeros(shape)
    np.fill_diagonal(middle, values)
    return orthogonal(shape[0], seed) @ middle @ orthogonal(shape[1], seed + 1)


@often
@given(spectra, seeds)
def test_prescribed_eigenvalues_are_found_whatever_their_signs(eigenvalues, seed):
    k = symmetric(eigenvalues, seed)
    rounding = 1e-14 * len(k) * max(1.0, abs(eigenvalues).max())
    np.testing.assert_allclose(spectrum(k), np.sort(eigenvalues), rtol=0, atol=rounding)
    assert abs(smallest_eigenvalue(k) - eigenvalues.min()) <= rounding


@often
@given(spectra, seeds)
def test_shifting_a_matrix_by_the_identity_shifts_its_smallest_eigenvalue(eigenvalues, seed):
    k = symmetric(eigenvalues, seed)
    shifted = smallest_eigenvalue(k + 3 * np.eye(len(k)))
    assert abs(shifted - smallest_eigenvalue(k) - 3) <= 1e-12


def test_a_singular_matrix_has_smallest_eigenvalue_zero_up_to_rounding():
    k = symmetric([0.0, 1.0, 2.0, 1e3])
    assert abs(smallest_eigenvalue(k)) <= 10 * EPS * 1e3
    assert smallest_eigenvalue(np.zeros((3, 3))) == 0.0


def test_an_indefinite_matrix_gives_its_negative_eigenvalue():
    assert smallest_eigenvalue(symmetric([-2.5, 1.0, 7.0])) == pytest.approx(-2.5, rel=1e-13)
    assert smallest_eigenvalue([[0.0, 1.0], [1.0, 0.0]]) == pytest.approx(-1.0, rel=1e-13)


def test_integers_and_lists_are_matrices_too():
    assert smallest_eigenvalue([[2, 1], [1, 2]]) == pytest.approx(1.0, rel=1e-14)
    assert smallest_eigenvalue(np.array([[5]])) == 5.0


def test_asymmetry_of_rounding_size_is_accepted():
    k = symmetric([1.0, 2.0, 3.0])
    k[0, 1] += 1e-9
    assert smallest_eigenvalue(k) == pytest.approx(1.0, abs=1e-8)


# --- large matrices: Lanczos iterations on the inverse --------------------------------------------

N_LARGE = 1610


@pytest.mark.parametrize("condition_number", [1.0, 1e1, 1e3, 1e6, 1e9, 1e12])
@pytest.mark.parametrize(
    "bottom",
    [
        lambda n: np.arange(n),
        lambda n: np.maximum(np.arange(n) - 20, 0),
        lambda n: np.arange(n) > 300,
    ],
    ids=["spread", "20 equal", "300 equal"],
)
def test_relative_error_is_the_condition_number_times_rounding(condition_number, bottom):
    exponents = bottom(N_LARGE) / bottom(N_LARGE).max()
    k = symmetric(3.0 * condition_number**exponents)
    assert abs(smallest_eigenvalue(k) / 3 - 1) <= 50 * condition_number * EPS


@pytest.mark.parametrize("gap", [1e-12, 1e-9, 1e-6, 1e-3])
def test_a_cluster_at_the_bottom_edge_is_resolved_to_rounding_by_closer_shifts(gap, monkeypatch):
    monkeypatch.setattr("ntk_utils.spectra._by_tridiagonal_form", None)
    k = symmetric(np.r_[1.0, 1 + gap * np.arange(1, 40), np.linspace(2, 10, N_LARGE - 40)])
    assert abs(smallest_eigenvalue(k) - 1) <= 50 * 10 * EPS


@pytest.mark.parametrize("missed", [0.99, 1 - 1e-9, 1 - 1e-12])
def test_an_eigenvector_that_the_start_does_not_see_is_not_missed(missed):
    # H exchanges the first axis and the start of the iterations, which is then within `seen`
    start = np.random.default_rng(0).normal(size=N_LARGE)
    towards = start / np.linalg.norm(start) - np.eye(N_LARGE)[0]
    reflected = np.eye(N_LARGE) - 2 * np.outer(towards, towards) / (towards @ towards)
    seen = symmetric(np.r_[1.0, np.linspace(1.3, 3, 39)])
    k = scipy.linalg.block_diag(seen, missed, np.diag(np.linspace(1.5, 2.5, N_LARGE - 41)))
    k = reflected @ k @ reflected
    assert abs(smallest_eigenvalue((k + k.T) / 2) - missed) <= 50 * 3 * EPS


def test_eigenvalues_that_are_all_but_equal_are_told_apart_to_rounding():
    k = symmetric(1 + 1e-12 * np.linspace(0, 1, N_LARGE))
    assert abs(smallest_eigenvalue(k) - np.linalg.eigvalsh(k)[0]) <= 50 * EPS


def test_matrices_of_integers_have_their_known_smallest_eigenvalue():
    i = np.arange(1.0, N_LARGE + 1)
    second_difference = 2 * np.eye(N_LARGE) - np.eye(N_LARGE, k=1) - np.eye(N_LARGE, k=-1)
    known = {
        4 * np.sin(np.pi / (2 * N_LARGE + 2)) ** 2: second_difference,
        1 / (4 * np.cos(np.pi / (2 * N_LARGE + 1)) ** 2): np.minimum.outer(i, i),
    }
    for value, k in known.items():
        assert abs(smallest_eigenvalue(k) / value - 1) <= 50 * conditioning(k) * EPS


@pytest.mark.parametrize("smallest", [-5.0, -1e-3, -1e-14, 0.0, 1e-14, 1e-20])
def test_what_is_not_definite_beyond_rounding_gets_its_tiny_or_negative_value(smallest):
    k = symmetric(np.r_[smallest, np.linspace(1, 10, N_LARGE - 1)])
    assert abs(smallest_eigenvalue(k) - smallest) <= 50 * 10 * EPS


def test_large_special_matrices():
    assert smallest_eigenvalue(np.eye(N_LARGE)) == pytest.approx(1, rel=1e-14)
    assert smallest_eigenvalue(np.zeros((N_LARGE, N_LARGE))) == 0
    assert smallest_eigenvalue(1e-300 * np.eye(N_LARGE)) == pytest.approx(1e-300, rel=1e-12)


def test_the_same_matrix_gives_the_same_value():
    k = symmetric(np.linspace(1, 10, N_LARGE))
    assert smallest_eigenvalue(k) == smallest_eigenvalue(k.copy())


def test_a_tiny_singular_value_is_found_without_squaring_the_condition_number():
    values = np.r_[1e-10, np.linspace(1, 2, 49)]
    f = with_singular_values(values, (50, 80))
    assert smallest_singular_value(f) == pytest.approx(1e-10, rel=1e-4)
    assert abs(smallest_eigenvalue(f @ f.T)) < 1e-14  # squared, 1e-20 is below rounding


# --- kernels --------------------------------------------------------------------------------------


def test_orthonormal_data_have_the_known_spectrum_of_the_limit():
    # three orthogonal samples of norm r: K^(2) = (a - b) I + b 11ᵀ, a = 2 r², b = r²/π
    r, n_samples = 1.5, 3
    k = limiting_ntk(r * np.asarray(orthogonal(5, seed=3)[:n_samples]), depth=2)
    a, b = 2 * r**2, r**2 / np.pi
    np.testing.assert_allclose(k, (a - b) * np.eye(3) + b * np.ones((3, 3)), rtol=1e-7)
    np.testing.assert_allclose(spectrum(k), [a - b, a - b, a + 2 * b], rtol=1e-7)
    assert smallest_eigenvalue(k) == pytest.approx(a - b, rel=1e-7)
    assert conditioning(k) == pytest.approx((a + 2 * b) / (a - b), rel=1e-7)


def test_a_repeated_point_makes_the_empirical_kernel_singular(key):
    key_x, key_w = jax.random.split(key)
    x = gaussian(key_x, 6, 5)
    params = init_params(Network((5, 40, 4, 1), "he"), key_w)
    distinct = empirical_ntk(params, x)
    repeated = empirical_ntk(params, x.at[3].set(x[0]))
    rounding = 1e-13 * float(np.trace(repeated))
    assert smallest_eigenvalue(distinct) > 1e3 * rounding
    assert abs(smallest_eigenvalue(repeated)) < rounding
    assert conditioning(repeated) == np.inf


@often
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=6), seeds)
def test_conditioning_is_the_ratio_of_the_extreme_eigenvalues(eigenvalues, seed):
    ratio = max(eigenvalues) / min(eigenvalues)
    assert conditioning(symmetric(eigenvalues, seed)) == pytest.approx(ratio, rel=1e-10)


@pytest.mark.parametrize("smallest", [0.0, 1e-17, -1e-17, -1.0])
def test_conditioning_is_infinite_unless_the_matrix_is_definite_beyond_rounding(smallest):
    assert conditioning(np.diag([1.0, smallest, 3.0])) == np.inf


def test_conditioning_of_the_identity_is_one_and_of_zero_infinite():
    assert conditioning(np.eye(4)) == 1.0
    assert conditioning(np.zeros((4, 4))) == np.inf


def test_a_large_but_finite_condition_number_is_not_called_infinite():
    assert conditioning(np.diag([1.0, 1e-12])) == pytest.approx(1e12, rel=1e-12)


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (4, 4), (1, 5), (5, 1)])
def test_prescribed_singular_values_are_found_in_both_rectangular_directions(shape):
    values = np.linspace(0.5, 3.0, min(shape))
    f = with_singular_values(values, shape)
    assert smallest_singular_value(f) == pytest.approx(values.min(), rel=1e-12)
    assert smallest_singular_value(f.T) == pytest.approx(values.min(), rel=1e-12)


def test_a_rank_deficient_matrix_has_smallest_singular_value_zero():
    f = with_singular_values([0.0, 1.0, 2.0], (3, 6))
    assert 0 <= smallest_singular_value(f) < 1e-14


def test_squared_singular_value_of_features_is_an_eigenvalue_of_their_gram_matrix(key):
    key_x, key_w = jax.random.split(key)
    x = gaussian(key_x, 6, 5)
    _, wide = feature_matrices(init_params(Network((5, 30, 1)), key_w), x)
    assert smallest_singular_value(wide) ** 2 == pytest.approx(
        smallest_eigenvalue(wide @ wide.T), rel=1e-10
    )


def test_with_fewer_neurons_than_samples_the_singular_value_is_about_the_columns(key):
    key_x, key_w = jax.random.split(key)
    x = gaussian(key_x, 40, 5)
    _, narrow = feature_matrices(init_params(Network((5, 4, 1)), key_w), x)
    sigma = smallest_singular_value(narrow)
    assert sigma**2 == pytest.approx(smallest_eigenvalue(narrow.T @ narrow), rel=1e-8)
    assert abs(smallest_eigenvalue(narrow @ narrow.T)) < 1e-10 * sigma**2


# --- what rounding hides --------------------------------------------------------------------------


@pytest.mark.parametrize("n_samples", [1, 4, 50])
def test_rounding_error_is_n_epsilon_times_the_trace(n_samples, key):
    x = np.asarray(gaussian(key, n_samples, 7))
    expected = n_samples * 2.0**-52 * (x**2).sum()
    assert rounding_error(x @ x.T) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_samples", [20, 200, 520])
def test_the_eigenvalue_of_a_singular_kernel_is_within_rounding_error_and_a_shift_is_seen(
    n_samples, key
):
    x = np.asarray(gaussian(key, n_samples, 5))
    k = x @ x.T
    rounding = rounding_error(k)
    assert abs(smallest_eigenvalue(k)) < rounding
    shifted = smallest_eigenvalue(k + 10 * rounding * np.eye(n_samples))
    assert 9 * rounding < shifted < 11 * rounding


# --- where a sampled spectrum begins --------------------------------------------------------------


def test_lower_edge_of_equal_eigenvalues_is_that_of_marchenko_and_pastur():
    for n_samples, n in ((100, 800), (100, 101), (1, 3)):
        edge = 7e-9 * (1 - np.sqrt(n_samples / n)) ** 2
        assert lower_edge(np.full(n_samples, 7e-9), n) == pytest.approx(edge, rel=1e-6)


def test_lower_edge_is_zero_without_more_columns_than_rows_and_near_the_smallest_with_many():
    population = np.array([3.0, 1.0, 2.0])
    assert [lower_edge(population, n) for n in (1, 2, 3)] == [0, 0, 0]
    assert 0.99 < lower_edge(population, 10**6) < 1
    assert lower_edge(population, 30) < lower_edge(population, 60)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sampled_covariances_begin_at_the_lower_edge(seed):
    n_samples, n = 300, 900
    population = np.linspace(1, 5, n_samples)
    a = np.sqrt(population)[:, None] * np.random.default_rng(seed).normal(size=(n_samples, n))
    edge = lower_edge(population, n)
    assert smallest_eigenvalue(a @ a.T / n) == pytest.approx(edge, rel=0.06)
    # a formula for equal eigenvalues, scaled by the smallest one, is far off
    assert (1 - np.sqrt(n_samples / n)) ** 2 < 0.6 * edge


# --- any scale ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [10, N_LARGE])
@pytest.mark.parametrize("size", [1.7e308, 1e200, 1e-200, 1e-308, 5e-324])
def test_a_multiple_of_the_identity_has_it_as_eigenvalue_at_any_scale(size, n):
    assert smallest_eigenvalue(size * np.eye(n)) == pytest.approx(size, rel=1e-12, abs=0)


@pytest.mark.parametrize("n", [10, N_LARGE])
def test_eigenvalues_that_have_no_inverse_are_0_to_rounding(n):
    for smallest in (1e-320, 1e-300, 0.0):
        k = np.diag(np.r_[smallest, np.ones(n - 1)])
        assert abs(smallest_eigenvalue(k) - smallest) < n * EPS


def test_a_matrix_of_0_has_the_eigenvalue_0():
    for n in (3, N_LARGE):
        assert smallest_eigenvalue(np.zeros((n, n))) == 0


@pytest.mark.parametrize("n", [20, N_LARGE])
def test_powers_of_two_pass_through_the_smallest_eigenvalue(n):
    k = symmetric(np.linspace(0.1, 1, n))
    value = smallest_eigenvalue(k)
    for exponent in (-1000, -3, 5, 1000):
        assert smallest_eigenvalue(np.ldexp(k, exponent)) == math.ldexp(value, exponent)


def test_iterations_that_do_not_end_lead_to_the_tridiagonal_form(monkeypatch):
    k = symmetric(np.linspace(0.1, 1, N_LARGE))
    monkeypatch.setattr("ntk_utils.spectra._MOST_FACTORS", 1)
    assert smallest_eigenvalue(k) == pytest.approx(0.1, rel=1e-12)


def test_an_inverse_that_is_no_number_leads_to_the_tridiagonal_form():
    root = np.eye(N_LARGE) - 1.5 * np.eye(N_LARGE, k=-1)  # its inverse has an entry 1.5^1609
    assert abs(smallest_eigenvalue(root @ root.T)) <= 50 * 6 * EPS


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_a_certain_eigenvalue_is_below_the_exact_one_and_0_for_a_singular_matrix(rank):
    for seed in range(100):
        rows = np.random.default_rng(seed).integers(-99, 100, size=(6, rank)) * 2.0**-20
        gram = rows @ rows.T
        integers = (gram * 2.0**40).astype(int).astype(object)
        lower = certain_smallest_eigenvalue(gram, rank)
        assert truth.is_at_most_lambda_min(lower * 2.0**40, integers)
        assert (lower == 0) == (rank < 6)
        assert lower >= smallest_eigenvalue(gram) - 1e-10 * np.trace(gram)


@pytest.mark.parametrize("n", [20, N_LARGE])
@pytest.mark.parametrize("lambda_min", [1e-3, 1e-11, 1e-15, 1e-17, 0.0])
def test_an_eigenvalue_above_rounding_is_the_smallest_one_or_0(n, lambda_min):
    k = symmetric(np.linspace(lambda_min, 1, n))
    found, rounding = eigenvalue_above_rounding(k), rounding_error(k)
    assert found == (smallest_eigenvalue(k) if found else 0.0)
    assert found == 0 or found > rounding
    assert abs(found - lambda_min) <= 1.1 * rounding
