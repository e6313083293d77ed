import itertools
import sys
import types
from fractions import Fraction
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.linalg
import truth
from helpers import draw
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ntk_utils import (
    UndecidedGate,
    digits,
    empirical_ntk,
    sandwich,
    verified_bounds,
    verified_lower_bound,
    verified_upper_bound,
)
from ntk_utils.bounds import verified


def encloses(params, x, verified_bounds=verified_bounds):
    """Whether the bounds enclose λ_min of the exact kernel, in rational arithmetic."""
    bounds, exact = verified_bounds(params, x), truth.exact_ntk_of_doubles(params, x)
    below = truth.is_at_most_lambda_min(bounds.lower, *exact)
    return below and (np.isinf(bounds.upper) or truth.is_at_least_lambda_min(bounds.upper, *exact))


# --- valid, and sharp -----------------------------------------------------------------------------

SHAPES = [(3, 1), (2, 6, 1), (3, 8, 4, 1), (4, 3, 6, 3, 1)]


@pytest.mark.parametrize("widths", SHAPES)
def test_exact_smallest_eigenvalue_is_enclosed_on_every_draw(widths):
    for seed in range(250):
        assert encloses(*draw(widths, seed, n_samples=2 + seed % 5)), seed


@pytest.mark.parametrize("widths", [(30, 60, 1), (5, 100, 5, 1), (20, 20, 20, 20, 1)])
def test_twenty_samples_are_enclosed_to_eight_digits(widths):
    params, x = draw(widths, 0, n_samples=20)
    lower, upper = verified_bounds(params, x)
    assert 0 < lower < upper < (1 + 1e-8) * lower
    assert encloses(params, x)


def test_bounds_of_all_digits_differ_by_a_millionth():
    params, _ = draw((64, 4000, 64, 1), 0, init="he")
    lower, upper = verified_bounds(params, digits(1797))
    assert 0 < lower < upper < (1 + 1e-6) * lower


@pytest.mark.parametrize("widths", [(3, 700, 1), (520, 600, 515, 1)])
def test_sums_in_chunks_are_enclosed(widths):
    for seed in range(2):
        assert encloses(*draw(widths, seed, n_samples=3)), seed


def test_measured_value_lies_between_the_bounds_up_to_its_rounding():
    for seed in range(20):
        params, x = draw((10, 200, 10, 1), seed, n_samples=100)
        lower, upper = verified_bounds(params, x)
        found = sandwich(params, x)
        assert lower - found.rounding <= found.lambda_min <= upper + found.rounding
        assert found.lower <= upper
        assert found.upper >= lower


def test_each_end_is_that_of_the_enclosure():
    params, x = draw((3, 8, 4, 1), 0)
    assert (verified_lower_bound(params, x), verified_upper_bound(params, x)) == verified_bounds(
        params, x
    )


# --- hard cases -----------------------------------------------------------------------------------


@pytest.mark.parametrize("exponents", [*itertools.product((-150, 0, 150), repeat=3)])
def test_scales_of_samples_and_weights_do_not_matter(exponents):
    """A power of ten is not exact, so every scale has its own rounding."""
    for seed in range(5):
        (w_1, w_2, w_3), x = draw((3, 8, 4, 1), seed, n_samples=4)
        of_x, of_w_1, of_w_2 = (10.0**e for e in exponents)
        params = (w_1 * of_w_1, w_2 * of_w_2, w_3)
        assert encloses(params, x * of_x), seed
        lower, upper = verified_bounds(params, x * of_x)
        if 0 < lower < upper < np.inf and lower > 1e-290:
            assert upper < (1 + 1e-6) * lower


def test_samples_of_different_scales_are_not_drowned_by_the_largest():
    params, x = draw((3, 8, 4, 1), 0, n_samples=4)
    x = np.asarray(x) * 10.0 ** np.array([[0], [-6], [4], [-3]])
    lower, upper = verified_bounds(params, x)
    assert 0 < lower < upper < (1 + 1e-6) * lower
    assert encloses(params, x)


def test_neurons_of_different_scales_are_enclosed():
    for seed in range(20):
        (w_1, w_2, w_3), x = draw((3, 8, 4, 1), seed, n_samples=4)
        scales = 10.0 ** np.random.default_rng(seed).uniform(-100, 100, 8)
        assert encloses((np.asarray(w_1) * scales, w_2, w_3), x), seed


@pytest.mark.parametrize("distance", [0.0, 2.0**-52, 1e-13, 1e-10, 1e-6])
def test_repeated_and_nearly_repeated_samples_are_enclosed(distance):
    for seed in range(20):
        params, x = draw((3, 8, 4, 1), seed, n_samples=4)
        x = np.vstack([x, np.asarray(x)[:1] * (1 + distance * np.arange(1, 4))])
        assert encloses(params, x), seed
        if distance < 1e-12:
            assert verified_lower_bound(params, x) == 0.0


def test_dead_samples_zero_samples_and_pruned_neurons_are_exact():
    params, x = draw((3, 2, 2, 1), 3, n_samples=12)
    assert not np.diagonal(empirical_ntk(params, x)).all()  # some sample is dead
    assert encloses(params, x)
    (w_1, *others), x = draw((3, 8, 4, 1), 0, n_samples=4)
    pruned = (np.asarray(w_1) * (np.arange(8) % 3 > 0), *others)
    assert encloses(pruned, x)
    assert verified_lower_bound(pruned, x) > 0
    assert verified_bounds(pruned, np.vstack([x, np.zeros(3)])).lower == 0.0


def test_kernels_of_too_few_weights_have_lower_bound_zero():
    for seed in range(50):
        params, x = draw((3, 2, 1), seed, n_samples=10)
        lower, upper = verified_bounds(params, x)
        assert lower == 0.0
        assert 0 <= upper < 1e-12


def test_networks_of_twelve_layers_are_enclosed_to_six_digits():
    params, x = draw((3, *[30] * 11, 1), 0, n_samples=30, init="he")
    lower, upper = verified_bounds(params, x)
    assert 0 < lower < upper < (1 + 1e-6) * lower


EXTREMES = {
    "samples far apart": ((np.ones((2, 1)),), np.diag([2.0**500, 2.0**-40])),
    "the largest numbers": ((np.ones((2, 1)),), np.array([[1.5e308, 1.5e308], [1.5e308, -1e308]])),
    "the largest numbers, a layer before": (
        (np.eye(2), np.full((2, 1), 1e-300)),
        np.array([[1.5e308, 1.5e308], [1e308, 1.5e308]]),
    ),
    "the smallest numbers": ((np.full((2, 1), 5e-324),), np.array([[5e-324, 0.0], [0.0, 1e-310]])),
    "a gradient far below its error": (
        (
            np.ones((1, 1)),
            np.full((1, 1025), 0.75),
            np.append(np.tile([1.0, -1.0], 512), 2.0**-1060)[:, None],
        ),
        np.ones((1, 1)),
    ),
    "a gradient and a kernel far below their errors": (
        (
            np.full((1, 1), 1e-300),
            np.full((1, 1025), 0.75),
            np.append(np.tile([1.0, -1.0], 512), 2.0**-1020)[:, None],
        ),
        np.ones((1, 1)),
    ),
    "a last layer of zeros": (
        (np.full((2, 3), 1e-200) * (1 + np.eye(2, 3)), np.zeros((3, 1))),
        np.array([[1e100, 2e100], [3e100, 1e100]]),
    ),
}


@pytest.mark.parametrize("case", EXTREMES)
def test_numbers_at_the_ends_of_what_a_double_can_be_are_enclosed(case):
    params, x = EXTREMES[case]
    assert not np.isnan(verified_bounds(params, x)).any()
    assert encloses(params, x)


def test_a_term_that_vanishes_does_not_set_the_scale():
    lower, upper = verified_bounds(*EXTREMES["a last layer of zeros"])
    assert 0 < lower < upper < (1 + 1e-6) * lower


def test_samples_and_neurons_of_independent_scales_are_enclosed():
    undecided = 0
    for seed in range(300):
        (w_1, *others), x = draw(SHAPES[1 + seed % 3], seed, n_samples=1 + seed % 4)
        rng = np.random.default_rng(seed)
        of_samples, of_neurons = (
            10.0 ** rng.uniform(-150, 150, shape) for shape in ((len(x), 1), w_1.shape[1])
        )
        try:
            assert encloses((np.asarray(w_1) * of_neurons, *others), np.asarray(x) * of_samples), (
                seed
            )
        except UndecidedGate:
            undecided += 1
    assert undecided < 150


def test_numbers_that_are_no_doubles_count_as_they_are_rounded():
    w = np.array([[2**60 + 1], [3]])
    assert encloses((w.astype(float),), np.eye(2))
    assert verified_bounds((w,), np.eye(2)) == verified_bounds((w.astype(float),), np.eye(2))


def test_a_sign_that_rounding_hides_is_refused_with_its_place():
    w_1, w_2 = np.ones((2, 3)), np.ones((3, 1))
    w_1[:, 2] = [1.0, -1.0 - 2.0**-52]
    x = np.array([[1.0, 0.5], [1.0, 1.0]])
    with pytest.raises(
        UndecidedGate, match=r"signs are certain, got .* layer 1, sample 1, neuron 2"
    ):
        verified_bounds((w_1, w_2), x)
    with pytest.raises(UndecidedGate) as error:
        verified_bounds((np.eye(2), w_1, w_2), x)
    assert (error.value.layer, error.value.sample, error.value.neuron) == (2, 1, 2)
    verified_bounds((w_1, w_2), x[:1])  # the others are certain


def test_nothing_is_proved_where_a_sign_is_uncertain():
    params = (np.array([[1.0], [-1.0 - 2.0**-52]]), np.ones((1, 1)))
    assert verified.what_is_proved(params, np.ones((1, 2))) == 0.0
    assert verified.what_is_proved(params, np.array([[1.0, 0.5]])) > 0


@pytest.mark.parametrize("value", [0.0, 1.0, 0.0012999, 12.3999, 5e-324, 1e300])
def test_a_bound_is_printed_rounded_down(value):
    assert (1 - 0.01) * value <= verified.rounded_down(value) <= value


def test_a_thread_that_flushes_subnormal_numbers_is_refused():
    """JAX's callbacks are such threads."""
    outcomes = []

    def callback(_):
        try:
            verified_bounds((np.ones((2, 1)),), np.eye(2))
            outcomes.append("proved")
        except RuntimeError as error:
            outcomes.append(str(error))
        return np.float64(0.0)

    shape = jax.ShapeDtypeStruct((), np.float64)
    jax.block_until_ready(jax.jit(lambda x: jax.pure_callback(callback, shape, x))(1.0))
    assert "subnormal" in outcomes[0]


def test_other_rounding_is_refused(monkeypatch):
    monkeypatch.setattr(verified, "_U", 2.0**-52)  # as if 1 + u were not 1
    with pytest.raises(RuntimeError, match="rounded to nearest"):
        verified_bounds(*draw((3, 8, 1), 0))


# --- every term of the error is needed ------------------------------------------------------------
#
# An arithmetic as bad as is allowed, |fl(A B) - A B| = 0.9 γ |A| |B|, in a network in which it does
# most harm: the bounds must hold, and must not hold once a term is struck from them.

N_SUMMED = 40


def cancelling(smallness):
    """Weights of which a sum is that many units of rounding, their own sizes 1."""
    return np.array([1.0, -1.0] * (N_SUMMED // 2) + [smallness * N_SUMMED**2 * 2.0**-53])


def features(smallness=4):
    """K̄ is the square of a feature in which weights cancel; other terms are 1e-90 of it."""
    return (cancelling(smallness)[:, None], np.array([[1e-60]])), np.ones((1, N_SUMMED + 1))


def nearly_off():
    """The feature is positive, by less than rounding may hide."""
    return features(smallness=0.5)


def nearly_off_behind():
    """The difference of two features is positive, by less than the error of one of them."""
    (w_1, _), x = features()
    w_1 = np.hstack([w_1, np.eye(len(w_1), 1)])
    return (w_1, np.array([[1.0], [-0.9 * w_1.sum(axis=0)[0]]]), np.ones((1, 1))), x


def features_passed_on():
    (w_1, w_3), x = features()
    return (w_1, np.array([[1.0]]), w_3), x


def gradients(smallness=4):
    """K̄ is the square of a gradient in which weights cancel."""
    w_2 = np.ones((1, N_SUMMED + 1))
    return (np.array([[1e-60]]), w_2, cancelling(smallness)[:, None]), np.ones((1, 1))


def gradients_passed_on():
    (w_1, w_2, w_3), x = gradients()
    return (w_1, np.array([[1.0]]), w_2, w_3), x


def many_neurons():
    return (np.full((1, 500), 1e-60), np.ones((500, 1))), np.ones((1, 1))


def many_dimensions():
    return (np.ones((500, 1)),), np.ones((1, 500))


def simplex():
    """The eigenvector of λ_min has equal entries, and errors of one sign add up in it."""
    return (np.ones((504, 1)),), np.tile(np.eye(8) - (1 - 0.1**0.5) / 8, 63)


def nearly_parallel():
    return (np.ones((2, 1)),), np.array([[1.0, 1.0], [1.0, 1.0 + 2.0**-47]])


def underflow():
    """The one open gate is open by a product that is no double any more."""
    w_1 = np.array([[-1.0, 0.0], [0.0, 2.0**-1074]])
    return (w_1, np.ones((2, 1))), np.array([[1.0, 0.25]])


def copy_of_verified(old="", new=""):
    """The module with a piece of its text replaced."""
    text = Path(verified.__file__).read_text(encoding="utf-8")
    assert old in text
    module = types.ModuleType(verified.__name__)
    exec(compile(text.replace(old, new), verified.__file__, "exec"), module.__dict__)
    return module


def make_products_bad(module, caller, sign):
    """Let the products that a function asks for be wrong by nearly all that is allowed."""
    exact = module._sum_of_products

    def bad(a, b):
        value = exact(a, b)
        if sys._getframe(1).f_code.co_name != caller:
            return value
        error = 0.9 * module._gamma(len(b)) * (np.abs(a) @ np.abs(b))
        return value + sign * (np.sign(value) if caller == J_T_V else 1) * error

    module._sum_of_products = bad


LAYER, GRAM, J_T_V = "_product", "_kernel", "<genexpr>"
SABOTAGES = {
    "rounding of features": ("(rounding * frobenius + ", "(", features, LAYER, 1),
    "rounding of gradients": ("(rounding * frobenius + ", "(", gradients, LAYER, 1),
    "error of features before": (
        " + error * np.minimum(spectral, frobenius))",
        ")",
        features_passed_on,
        LAYER,
        1,
    ),
    "error of gradients behind": (
        " + error * np.minimum(spectral, frobenius))",
        ")",
        gradients_passed_on,
        LAYER,
        1,
    ),
    "error of features": ("(f.error * of_b + ", "(", features, LAYER, 1),
    "error of gradients": (" + of_f * b.error)", ")", gradients, LAYER, 1),
    "error times size": ("eta * t**2 + c * (c / eta)", "c * (c / eta)", features, LAYER, 1),
    "size times error": ("eta * t**2 + c * (c / eta)", "eta * t**2", features, LAYER, 1),
    "rounding at a gate": ("(g.rounding + g.error)", "g.error", nearly_off, LAYER, -1),
    "error of features at a gate": (
        "(g.rounding + g.error)",
        "g.rounding",
        nearly_off_behind,
        LAYER,
        -1,
    ),
    "Gram matrices of features": ("_gamma(f.shape[1]) + ", "", many_dimensions, GRAM, 1),
    "Gram matrices of gradients": (
        "_gamma(b.shape[1], len(terms) + 2)",
        "0",
        many_neurons,
        GRAM,
        1,
    ),
    "errors of one sign": ("len(k) * delta * _UP", "delta * _UP", simplex, GRAM, 1),
    "rounding of Jᵀv": ("gamma * t + c", "c", nearly_parallel, J_T_V, -1),
    "error of Jᵀv": ("gamma * t + c", "gamma * t", features, LAYER, -1),
    "what underflow loses": (
        "any(axis=0), _LOST, 0.0)",
        "any(axis=0), 0.0, 0.0)",
        underflow,
        None,
        0,
    ),
}
REFUSED = {"rounding at a gate", "error of features at a gate", "what underflow loses"}
"""Where what is struck out is what finds a sign uncertain."""


@pytest.mark.parametrize("sabotage", SABOTAGES)
def test_without_one_term_of_the_error_the_bounds_are_wrong(sabotage):
    old, new, instance, caller, sign = SABOTAGES[sabotage]
    params, x = instance()
    outcomes = []
    for module in (copy_of_verified(), copy_of_verified(old, new)):
        make_products_bad(module, caller, sign)
        try:
            outcomes.append(encloses(params, x, module.verified_bounds))
        except module.UndecidedGate:
            outcomes.append("undecided")
    assert outcomes == ["undecided" if sabotage in REFUSED else True, False]


def test_a_gradient_that_is_computed_as_zero_still_has_its_error():
    module = copy_of_verified()
    exact = module._sum_of_products

    def to_zero(a, b):
        value = exact(a, b)
        allowed = module._gamma(len(b)) * (np.abs(a) @ np.abs(b))
        return np.where(np.abs(value) <= allowed, 0.0, value)

    module._sum_of_products = to_zero
    params, x = gradients(smallness=0.01)
    assert not module._backward(params, [np.ones((1, n), bool) for n in (1, 41)], 1)[0].value.any()
    assert encloses(params, x, module.verified_bounds)


def test_without_the_error_of_the_factor_a_singular_matrix_is_called_definite():
    n = 30
    singular, roundings = n * np.eye(n) - 1, n * (n + 1) * 2.0**-53 * n

    def of_what_is_allowed(a, **options):
        diagonal = np.sqrt(np.diagonal(a))
        allowed = 0.9 * (n + 1) * 2.0**-53 * np.outer(diagonal, diagonal)
        return scipy.linalg.cholesky(a + allowed, **options)

    bounds = []
    for new in ("n * gamma * diagonal", "0 * gamma * diagonal"):
        module = copy_of_verified("n * gamma * diagonal", new)
        module._smallest = lambda _: roundings / 2  # too large, but not beyond all doubt
        module.scipy = types.SimpleNamespace(
            linalg=types.SimpleNamespace(
                cholesky=of_what_is_allowed,
                eigh=scipy.linalg.eigh,
                cho_solve=scipy.linalg.cho_solve,
                LinAlgError=scipy.linalg.LinAlgError,
            )
        )
        bounds.append(module._below(singular, 0.0)[0])
    assert bounds[0] <= 0 < bounds[1]


@settings(deadline=None, derandomize=True)
@given(arrays(np.float64, (3, 7), elements=st.floats(-6e307, 6e307)))
def test_norms_are_upper_bounds(a):
    for row, norm in zip(a, verified._norms(a), strict=True):
        squares = sum(Fraction(float(v)) ** 2 for v in row)
        assert squares <= Fraction(float(norm)) ** 2
        if norm > 1e-300:
            assert Fraction(float(norm)) ** 2 <= squares * Fraction(1 + 1e-9) ** 2


@settings(deadline=None, derandomize=True)
@given(st.floats(0, 1e10), st.floats(0, 1e10))
def test_differences_are_rounded_down(a, b):
    assert Fraction(float(verified._less(a, b))) <= Fraction(a) - Fraction(b)


@pytest.mark.parametrize("n", [1, 2, 511, 512, 513, 10**5])
def test_gamma_is_at_least_that_of_all_roundings(n):
    roundings = Fraction(min(n, 512) + -(-n // 512)) * Fraction(2) ** -53
    exact = roundings / (1 - roundings)
    assert exact <= Fraction(verified._gamma(n)) <= exact * Fraction(1 + 1e-9)
