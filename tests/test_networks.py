import functools
import itertools
import math
from types import SimpleNamespace

import helpers
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import Phase, given, settings

from ntk_utils import (
    Network,
    apply,
    as_stax,
    backward_matrices,
    empirical_ntk,
    feature_matrices,
    gaussian,
    init_params,
    layer_ntks,
    layer_shares,
    networks,
    sandwich,
    schur_terms,
)

# one to four weight matrices, a width of 1 and a widening and a narrowing layer among them
ARCHITECTURES = [(3, 1), (4, 6, 1), (3, 5, 1, 1), (2, 7, 4, 3, 1)]

# no shrinking: a failure would compile for minutes
few = settings(
    max_examples=20,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
)
seeds = st.integers(0, 2**31 - 1)


draw = functools.partial(helpers.draw, n_samples=5)


def naive_features(params, x_i):
    """f_0, …, f_{L-1} of one sample, one neuron at a time."""
    f = [list(x_i)]
    for w in params[:-1]:
        pre_activations = [
            sum(w[i, j] * f_i for i, f_i in enumerate(f[-1])) for j in range(len(w.T))
        ]
        f.append([max(g, 0.0) for g in pre_activations])
    return f


def test_depth_counts_the_weight_matrices():
    assert [Network(widths).depth for widths in ARCHITECTURES] == [1, 2, 3, 4]


def test_lecun_is_the_default_and_has_variance_one_over_fan_in():
    network = Network((3, 5, 7, 1))
    assert network == Network((3, 5, 7, 1), init="lecun")
    np.testing.assert_allclose(np.square(network.betas), [1 / 3, 1 / 5, 1 / 7], rtol=1e-14)


def test_he_has_variance_two_over_fan_in():
    betas = Network((3, 5, 7, 1), init="he").betas
    np.testing.assert_allclose(np.square(betas), [2 / 3, 2 / 5, 2 / 7], rtol=1e-14)


def test_explicit_betas_are_standard_deviations_and_kept_as_given():
    assert Network((3, 5, 1), init=(0.25, 3.0)).betas == (0.25, 3.0)


def test_networks_with_equal_fields_are_equal_and_hash_alike():
    one, other = Network((3, 5, 1), init=(0.5, 1.0)), Network((3, 5, 1), init=(0.5, 1.0))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Network((3, 5, 1), init=(0.5, 2.0))


def test_lists_and_numpy_numbers_describe_the_same_network(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # its hints say tuple
    network = Network([np.int64(3), 5, np.int32(1)], init=[np.float64(0.5), 1])
    assert network == Network((3, 5, 1), init=(0.5, 1.0))
    assert all(type(n) is int for n in network.widths)
    assert hash(network) == hash(Network((3, 5, 1), init=(0.5, 1.0)))


@pytest.mark.parametrize("widths", ARCHITECTURES)
def test_weights_have_the_shapes_of_the_papers_and_double_precision(widths):
    params = init_params(Network(widths), jax.random.key(0))
    assert [w.shape for w in params] == list(itertools.pairwise(widths))
    assert all(w.dtype == jnp.float64 for w in params)


@pytest.mark.parametrize("init", ["lecun", "he", (0.1, 3.0, 0.7)])
def test_weights_have_the_moments_of_a_centred_gaussian_of_deviation_beta(init, key):
    network = Network((200, 250, 300, 1), init=init)
    for beta, w in zip(network.betas, init_params(network, key), strict=True):
        z = np.ravel(w) / beta
        # five standard errors of the mean of 1, of z² (variance 2) and of z⁴ (variance 96)
        assert abs(z.mean()) < 5 / math.sqrt(z.size)
        assert abs((z**2).mean() - 1) < 5 * math.sqrt(2 / z.size)
        assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / z.size)


def test_weight_matrices_of_different_layers_are_uncorrelated(key):
    w_1, w_2, _ = init_params(Network((150, 150, 150, 1), init=(1.0, 1.0, 1.0)), key)
    assert abs((w_1 * w_2).mean()) < 5 / 150


def test_the_same_key_gives_the_same_gaussians_scaled_by_the_betas(key):
    unit = init_params(Network((4, 6, 3, 1), init=(1.0, 1.0, 1.0)), key)
    scaled = init_params(Network((4, 6, 3, 1), init=(0.3, 5.0, 2.0)), key)
    for beta, w, z in zip((0.3, 5.0, 2.0), scaled, unit, strict=True):
        np.testing.assert_allclose(w, beta * z, rtol=1e-15)


def test_different_keys_give_different_weights():
    network = Network((4, 6, 1))
    first, second = (init_params(network, jax.random.key(seed)) for seed in (0, 1))
    assert all((a != b).all() for a, b in zip(first, second, strict=True))


def test_old_style_keys_draw_the_same_weights_as_new_ones():
    network = Network((4, 6, 1))
    old, new = (init_params(network, make(3)) for make in (jax.random.PRNGKey, jax.random.key))
    assert all((a == b).all() for a, b in zip(old, new, strict=True))


@few
@given(st.sampled_from(ARCHITECTURES), seeds)
def test_features_and_output_agree_with_a_loop_over_neurons(widths, seed):
    params, x = draw(widths, jax.random.key(seed))
    features, outputs = feature_matrices(params, x), apply(params, x)
    assert outputs.shape == (5,)
    params, x = [np.asarray(w) for w in params], np.asarray(x)
    for i in range(5):
        f = naive_features(params, x[i])
        for k in range(len(params)):
            np.testing.assert_allclose(features[k][i], f[k], rtol=1e-10, atol=1e-12)
        output = sum(w_j * f_j for w_j, f_j in zip(params[-1][:, 0], f[-1], strict=True))
        np.testing.assert_allclose(outputs[i], output, rtol=1e-10, atol=1e-12)


def test_the_first_feature_matrix_is_the_data(key):
    params, x = draw((4, 6, 1), key)
    assert (feature_matrices(params, x)[0] == x).all()


@few
@given(st.sampled_from(ARCHITECTURES), seeds)
def test_gradient_in_each_weight_matrix_is_an_outer_product(widths, seed):
    params, x = draw(widths, jax.random.key(seed))
    gradients = gradient_of_every_output(params, x)
    f, b = feature_matrices(params, x), backward_matrices(params, x)
    assert [m.shape for m in b] == [(5, n) for n in widths[1:]]
    for gradient, f_k, b_next in zip(gradients, f, b, strict=True):
        outer = np.einsum("ni,nj->nij", f_k, b_next)
        np.testing.assert_allclose(gradient, outer, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("activation", helpers.SMOOTH)
@pytest.mark.parametrize("widths", ARCHITECTURES)
def test_with_a_smooth_activation_gradients_are_outer_products_as_well(widths, activation):
    params, x = draw(widths, 3)
    gradients = jax.jit(jax.jacrev(functools.partial(apply, activation=activation)))(params, x)
    f = feature_matrices(params, x, activation=activation)
    b = backward_matrices(params, x, activation=activation)
    for k, w in enumerate(params[:-1]):
        np.testing.assert_allclose(f[k + 1], activation(f[k] @ w), rtol=1e-12)
    for gradient, f_k, b_next in zip(gradients, f, b, strict=True):
        outer = np.einsum("ni,nj->nij", f_k, b_next)
        np.testing.assert_allclose(gradient, outer, rtol=1e-10, atol=1e-12)


@jax.jit
def gradient_of_every_output(params, x):
    """∂f_L(x_i)/∂W_l for every i and l, by automatic differentiation."""
    return jax.jacrev(apply)(params, x)


def test_the_last_backward_matrix_is_a_column_of_ones(key):
    params, x = draw((4, 6, 3, 1), key)
    np.testing.assert_array_equal(backward_matrices(params, x)[-1], np.ones((5, 1)))


def test_the_derivative_of_the_relu_at_zero_is_zero(key):
    params, _ = draw((4, 6, 3, 1), key)
    b_1, b_2, _ = backward_matrices(params, np.zeros((2, 4)))
    assert not b_1.any()
    assert not b_2.any()


@pytest.mark.parametrize("layer", [0, 1, 2, "x"])
def test_output_is_positively_homogeneous_in_each_weight_matrix_and_in_the_data(layer, key):
    params, x = draw((4, 6, 3, 1), key)
    if layer == "x":
        scaled = apply(params, 2.5 * x)
    else:
        scaled = apply([2.5 * w if k == layer else w for k, w in enumerate(params)], x)
    np.testing.assert_allclose(scaled, 2.5 * apply(params, x), rtol=1e-12, atol=1e-14)


def test_depth_one_is_the_linear_model(key):
    (w,), x = draw((4, 1), key)
    np.testing.assert_allclose(apply((w,), x), (np.asarray(x) @ np.asarray(w))[:, 0], rtol=1e-13)
    (f,), (b,) = feature_matrices((w,), x), backward_matrices((w,), x)
    np.testing.assert_array_equal(f, x)
    np.testing.assert_array_equal(b, np.ones((5, 1)))


@pytest.mark.parametrize("widths", ARCHITECTURES)
@pytest.mark.parametrize("function", [apply, feature_matrices, backward_matrices])
def test_numpy_lists_and_jax_arrays_give_the_same_numbers(function, widths):
    params, x = draw(widths, jax.random.key(1))
    expected = jax.tree.leaves(function(params, x))
    as_numpy = jax.tree.leaves(function([np.asarray(w) for w in params], np.asarray(x)))
    as_lists = jax.tree.leaves(function([w.tolist() for w in params], x.tolist()))
    for a, b, c in zip(expected, as_numpy, as_lists, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def stax_params(params):
    """The weights (W_1, …, W_L) as `as_stax`'s apply_fn takes them."""
    layers = [entry for w in params for entry in ((w, None), ())]
    return layers[:-1]


@pytest.mark.parametrize("activation", [jax.nn.relu, *helpers.SMOOTH])
@pytest.mark.parametrize("widths", ARCHITECTURES)
def test_as_stax_is_the_same_function_of_the_same_weights(widths, activation):
    params, x = draw(widths, jax.random.key(2))
    _, apply_fn, _ = as_stax(Network(widths, "he", activation))
    outputs = apply_fn(stax_params(params), x)
    expected = apply(params, x, activation=activation)
    np.testing.assert_allclose(outputs[:, 0], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("activation", [jax.nn.relu, *helpers.SMOOTH])
def test_the_kernel_that_as_stax_gives_is_met_by_wide_networks(activation):
    network = Network((5, 4000, 1), activation=activation)
    params, x = draw(network.widths, 0)
    _, _, kernel_fn = as_stax(network)
    k, limit = empirical_ntk(params, x, activation=activation), kernel_fn(x, None, "ntk")
    assert abs(k - limit).max() < 0.1 * abs(limit).max()  # of the order n^(-1/2)


def test_as_stax_draws_weights_of_the_same_shapes_and_deviations(key):
    network = Network((200, 250, 300, 1), init=(0.1, 3.0, 0.7))
    init_fn, _, _ = as_stax(network)
    shape, params = init_fn(key, (5, 200))
    weights = [entry[0] for entry in params if entry]
    assert shape == (5, 1)
    assert [w.shape for w in weights] == [(200, 250), (250, 300), (300, 1)]
    for beta, w in zip(network.betas, weights, strict=True):
        assert abs((np.asarray(w) ** 2).mean() / beta**2 - 1) < 5 * math.sqrt(2 / w.size)


# --- NumPy on a processor, XLA on an accelerator --------------------------------------------------

# widths and samples that no other test uses: a compiled function would be compiled anew for each
NEW_SHAPES = [((3, 1), 6), ((4, 11, 1), 7), ((3, 5, 1, 1), 9), ((2, 13, 6, 3, 1), 11)]
OF_WEIGHTS_AND_SAMPLES = [apply, feature_matrices, backward_matrices, empirical_ntk, layer_ntks]


@pytest.fixture
def compiled(monkeypatch):
    """Call a function as on an accelerator that has much to do."""

    def call(function, *args):
        with monkeypatch.context() as patch:
            patch.setattr(networks, "_in_numpy", lambda *_: False)
            return function(*args)

    return call


@pytest.mark.parametrize("function", [*OF_WEIGHTS_AND_SAMPLES, schur_terms, sandwich, layer_shares])
def test_nothing_is_compiled_for_new_shapes_on_a_processor(function):
    for seed, (widths, n_samples) in enumerate(NEW_SHAPES):
        params, x = draw(widths, seed, n_samples=n_samples)
        with helpers.compilations() as events:
            function(params, x)
        assert events == [], widths


@pytest.mark.parametrize("function", OF_WEIGHTS_AND_SAMPLES)
def test_what_is_compiled_is_compiled_once_for_each_shape(function, compiled):
    params, x = draw((5, 17, 1), 0, n_samples=13)
    counts = []
    for _ in range(2):
        with helpers.compilations() as events:
            compiled(function, params, x)
        counts.append(len(events))
    assert counts[0] > 0
    assert counts[1] == 0


@pytest.mark.parametrize("widths", ARCHITECTURES)
@pytest.mark.parametrize("function", OF_WEIGHTS_AND_SAMPLES)
def test_numpy_and_xla_agree_to_rounding(function, widths, compiled):
    for seed in range(3):
        params, x = draw(widths, seed)
        ours, theirs = (
            jax.tree.leaves(call(function, params, x))
            for call in (lambda f, *args: f(*args), compiled)
        )
        for a, b in zip(ours, theirs, strict=True):
            assert (np.shape(a), type(a)) == (np.shape(b), type(b))
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())


@pytest.mark.parametrize("function", [apply, feature_matrices, backward_matrices, empirical_ntk])
@pytest.mark.parametrize("of_weights", ["float32", "float64"])
@pytest.mark.parametrize("of_samples", ["float32", "float64"])
def test_numpy_and_xla_agree_on_the_precision(function, of_weights, of_samples, compiled):
    params, x = draw((4, 6, 3, 1), 0)
    params, x = [w.astype(of_weights) for w in params], x.astype(of_samples)
    ours, theirs = function(params, x), compiled(function, params, x)
    dtypes, of_xla = ([a.dtype for a in jax.tree.leaves(result)] for result in (ours, theirs))
    assert dtypes == of_xla


@pytest.mark.parametrize("function", [apply, feature_matrices, backward_matrices, empirical_ntk])
def test_tracers_of_weights_or_of_samples_alone_are_compiled(function, key):
    params, x = draw((4, 6, 3, 1), key)
    expected = jax.tree.leaves(function(params, x))
    of_weights = jax.jit(lambda params: function(params, x))(params)
    of_samples = jax.jit(lambda x: function(params, x))(x)
    many = jax.vmap(lambda c: function(params, c * x))(jnp.array([1.0, 2.0]))
    for i, a in enumerate(expected):
        for b in (of_weights, of_samples, jax.tree.map(lambda m: m[0], many)):
            np.testing.assert_allclose(jax.tree.leaves(b)[i], a, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("function", [apply, empirical_ntk])
def test_gradients_are_those_of_difference_quotients(function):
    params, x = draw((4, 6, 3, 1), 0)
    direction = gaussian(jax.random.key(1), *x.shape)
    step = 1e-6
    along = jax.jvp(lambda x: function(params, x), (x,), (direction,))[1]
    change = function(params, x + step * direction) - function(params, x - step * direction)
    np.testing.assert_allclose(along, change / (2 * step), rtol=1e-6, atol=1e-8)
    slope = jax.grad(lambda params: function(params, x).sum())(params)
    larger, smaller = ([c * w for w in params] for c in (1 + step, 1 - step))
    rise = (function(larger, x) - function(smaller, x)).sum() / (2 * step)
    radial = sum((g * w).sum() for g, w in zip(slope, params, strict=True))
    np.testing.assert_allclose(radial, rise, rtol=1e-6, atol=1e-8)


class Recorder:
    """Stands in for a jitted function, and says which way it was called."""

    def __call__(self, params, x):  # noqa: ARG002
        return "compiled"

    def __wrapped__(self, params, x):
        return "in NumPy"


class OnDevice(np.ndarray):
    """Stands in for samples on an accelerator, and takes no memory."""

    platform: str

    def devices(self):
        return [SimpleNamespace(platform=self.platform)]


@pytest.mark.parametrize(
    ("platform", "n_samples", "widths", "expected"),
    [
        ("cpu", 10**4, (1000, 8000, 1), "in NumPy"),
        ("gpu", 1000, (50, 400, 1), "in NumPy"),
        ("gpu", 1100, (50, 400, 1), "compiled"),  # much work
        ("gpu", 20, (6000, 6000, 1), "compiled"),  # many weights
    ],
)
def test_what_an_accelerator_does_sooner_than_numpy_is_compiled_and_nothing_on_a_processor(
    platform, n_samples, widths, expected, monkeypatch
):
    monkeypatch.setattr(networks._checks, "on_device", lambda result: result)
    params = [np.broadcast_to(0.0, shape) for shape in itertools.pairwise(widths)]
    x = np.broadcast_to(0.0, (n_samples, widths[0])).view(OnDevice)
    x.platform = platform
    assert networks.without_compiling(Recorder(), params, x) == expected
