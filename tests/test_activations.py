import copy
import pickle

import cloudpickle
import helpers
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import Phase, given, settings

from ntk_utils import (
    Network,
    SmoothedLeakyReLU,
    activations,
    apply,
    empirical_ntk,
    mean_kernel_diagonal,
)

# no shrinking: a failure would compile for minutes
few = settings(
    max_examples=20, derandomize=True, deadline=None, phases=[Phase.explicit, Phase.generate]
)


@pytest.mark.parametrize("activation", [activations.relu, *helpers.SMOOTH])
@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_slopes_are_the_derivatives_of_the_values_in_numpy_and_in_jax(activation, as_array):
    g = as_array(np.linspace(-2, 2, 8).reshape(2, 4))
    step = 1e-6
    ends = [np.asarray(activations.values(activation, g + h)) for h in (step, -step)]
    slopes = activations.slopes(activation, g)
    np.testing.assert_allclose(slopes, np.subtract(*ends) / (2 * step), rtol=1e-6)
    assert isinstance(slopes, np.ndarray) == isinstance(g, np.ndarray)
    assert isinstance(activations.values(activation, g), np.ndarray) == isinstance(g, np.ndarray)


@pytest.mark.parametrize("function", [activations.values, activations.slopes])
def test_smooth_activations_compile_nothing_for_a_new_shape_of_numpy(function):
    function(jnp.tanh, np.ones((3, 5)))
    with helpers.compilations() as events:
        for shape in [(7, 11), (1, 1), (100, 301)]:
            g = np.linspace(-1, 1, np.prod(shape)).reshape(shape)
            expected = np.tanh(g) if function is activations.values else 1 - np.tanh(g) ** 2
            np.testing.assert_allclose(function(jnp.tanh, g), expected, rtol=1e-12)
    assert events == []


def test_jaxs_own_relu_is_the_relu():
    network = Network((3, 8, 1), activation=jax.nn.relu)
    assert network == Network((3, 8, 1))
    params, x = helpers.draw((3, 8, 1), 0)
    ours, theirs = empirical_ntk(params, x), empirical_ntk(params, x, activation=jax.nn.relu)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "copied",
    [
        lambda network: pickle.loads(pickle.dumps(network)),
        lambda network: cloudpickle.loads(cloudpickle.dumps(network)),
        copy.deepcopy,
    ],
)
@pytest.mark.parametrize("activation", [activations.relu, SmoothedLeakyReLU(0.3, 2.0)])
def test_a_copy_of_a_network_is_the_same_network(activation, copied):
    network = Network((3, 8, 1), activation=activation)
    assert copied(network) == network


def test_a_network_from_another_process_is_still_known_to_be_a_relu_network():
    network = cloudpickle.loads(cloudpickle.dumps(Network((3, 8, 1))))
    assert mean_kernel_diagonal(network, np.eye(3)).shape == (3,)


def test_a_network_is_shown_without_its_activation_if_that_is_the_relu():
    assert repr(Network((3, 8, 1))) == "Network(widths=(3, 8, 1), init='lecun')"
    assert repr(Network((3, 1), "he", jnp.tanh)).endswith("init='he', activation=tanh)")
    assert "SmoothedLeakyReLU(gamma=0.5" in repr(Network((3, 1), activation=SmoothedLeakyReLU()))


def test_an_activation_may_depend_on_what_is_differentiated_under_jit():
    params, x = helpers.draw((3, 8, 1), 0)

    @jax.jit
    def of_slope(a, params, x):
        return apply(params, x, activation=lambda u: jnp.tanh(a * u)).sum()

    step = 1e-6
    quotient = (of_slope(1 + step, params, x) - of_slope(1 - step, params, x)) / (2 * step)
    assert jax.grad(of_slope)(1.0, params, x) == pytest.approx(float(quotient), rel=1e-6)


# --- the smoothed leaky ReLU ----------------------------------------------------------------------

smoothings = st.tuples(st.floats(0.05, 0.95), st.floats(0.1, 100.0))


def convolution(gamma, beta, u):
    """The example of arXiv:2002.07867 by quadrature."""
    density = lambda v: mpmath.exp(-mpmath.pi * beta**2 * (u - v) ** 2 / (1 - gamma) ** 2)  # noqa: E731
    reach = 12 * (1 - gamma) / beta
    edges = sorted({u - reach, 0.0, u, u + reach})
    smoothed = mpmath.quad(lambda v: max(gamma * v, v) * density(v), edges)
    return beta / (1 - gamma) * smoothed - (1 - gamma) ** 2 / (2 * mpmath.pi * beta)


@pytest.mark.parametrize(("gamma", "beta"), [(0.5, 1.0), (0.3, 4.0), (0.9, 0.2)])
def test_the_smoothed_leaky_relu_is_the_convolution_with_a_gaussian(gamma, beta):
    for u in (-2.0, -0.3, 0.0, 0.1, 1.5):
        expected = float(convolution(gamma, beta, u))
        assert SmoothedLeakyReLU(gamma, beta)(u) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@few
@given(smoothings)
def test_the_smoothed_leaky_relu_has_the_three_properties_of_the_theorem(smoothing):
    gamma, beta = smoothing
    u = jnp.linspace(-20, 20, 2001) / min(beta, 1)
    sigma = SmoothedLeakyReLU(gamma, beta)
    slope, curvature = (jax.vmap(f)(u) for f in (jax.grad(sigma), jax.grad(jax.grad(sigma))))
    assert sigma(0.0) == pytest.approx(0, abs=1e-15 / beta)
    assert (abs(sigma(u)) <= abs(u) + 1e-15 / beta).all()
    assert (slope >= gamma - 1e-14).all()
    assert (slope <= 1 + 1e-14).all()
    assert abs(curvature).max() == pytest.approx(beta, rel=1e-9)  # at 0; β is the best constant


@pytest.mark.parametrize("gamma", [0.1, 0.5])
def test_the_smoothed_leaky_relu_tends_to_the_leaky_one(gamma):
    u = jnp.linspace(-3, 3, 301)
    gaps = [
        abs(SmoothedLeakyReLU(gamma, beta)(u) - jax.nn.leaky_relu(u, gamma)).max()
        for beta in (10.0, 100.0)
    ]
    assert gaps[1] < gaps[0] / 9
    assert gaps[1] > 0
