import functools
import itertools
import math

import helpers
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pandas as pd
import pytest
import truth
from hypothesis import Phase, given, settings

from ntk_utils import (
    Network,
    activations,
    apply,
    as_stax,
    backward_matrices,
    empirical_ntk,
    empirical_ntk_fn,
    feature_matrices,
    gaussian,
    init_params,
    kernels,
    layer_ntks,
    limiting_layer_ntks,
    limiting_ntk,
    mean_layer_diagonals,
    networks,
    smallest_eigenvalue,
    uniform_sphere,
    wide_layer_ntks,
)

# few shapes, because JAX compiles each of them: a linear model, a width of 1, a wide layer
ARCHITECTURES = [(3, 1), (4, 6, 1), (3, 5, 1, 1), (5, 40, 4, 1), (2, 7, 4, 3, 1)]
IMPLEMENTATIONS = [
    None,
    "STRUCTURED_DERIVATIVES",
    "JACOBIAN_CONTRACTION",
    "NTK_VECTOR_PRODUCTS",
    "AUTO",
]
N_SAMPLES = 6

# no shrinking: a failure would compile for minutes
quick = {"derandomize": True, "deadline": None, "phases": [Phase.explicit, Phase.generate]}
often = settings(max_examples=40, **quick)
rarely = settings(max_examples=10, **quick)
architectures = st.sampled_from(ARCHITECTURES)
seeds = st.integers(0, 2**31 - 1)


draw = functools.partial(helpers.draw, n_samples=N_SAMPLES)


@jax.jit
def layer_terms_from_jacobian(params, x):
    """J_l J_lᵀ for every weight matrix, J_l by automatic differentiation."""
    jacobians = jax.jacrev(apply)(params, x)
    return jnp.stack([jnp.einsum("nij,mij->nm", j, j) for j in jacobians])


def assert_close(actual, expected, rtol=1e-12):
    """Two-sided, relative to the largest entry."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * np.abs(expected).max())


# --- the empirical kernel -------------------------------------------------------------------------


@rarely
@given(
    st.integers(1, 6),
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
    st.integers(1, 8),
    seeds,
)
def test_layer_terms_are_those_of_the_jacobian_on_random_architectures(d, hidden, n_samples, seed):
    rng = np.random.default_rng(seed)
    params = [rng.normal(size=shape) for shape in itertools.pairwise((d, *hidden, 1))]
    x = rng.normal(size=(n_samples, d))
    assert_close(layer_ntks(params, x), layer_terms_from_jacobian(params, x))


@often
@given(architectures, seeds)
def test_layer_terms_are_those_of_the_jacobian_on_many_draws(widths, seed):
    params, x = draw(widths, seed)
    assert_close(layer_ntks(params, x), layer_terms_from_jacobian(params, x))


@pytest.mark.parametrize("activation", helpers.SMOOTH)
@pytest.mark.parametrize("widths", ARCHITECTURES)
def test_layer_terms_of_a_smooth_activation_are_those_of_the_jacobian(widths, activation):
    outputs = functools.partial(apply, activation=activation)
    for seed in range(3):
        params, x = draw(widths, seed)
        terms = [np.einsum("nij,mij->nm", j, j) for j in jax.jit(jax.jacrev(outputs))(params, x)]
        assert_close(layer_ntks(params, x, activation=activation), np.array(terms))
        assert_close(empirical_ntk(params, x, activation=activation), sum(terms))


@pytest.mark.parametrize("activation", helpers.SMOOTH)
def test_neural_tangents_has_the_same_kernel_of_a_smooth_activation(activation):
    network = Network((5, 40, 4, 1), activation=activation)
    params, x = draw(network.widths, 2)
    _, apply_fn, _ = as_stax(network)
    weights = [entry for w in params for entry in ((w, None), ())][:-1]
    theirs = empirical_ntk_fn(apply_fn)(weights, x)
    assert_close(empirical_ntk(params, x, activation=activation), theirs)


@often
@given(architectures, seeds)
def test_layer_terms_sum_to_the_empirical_kernel(widths, seed):
    params, x = draw(widths, seed)
    terms = layer_ntks(params, x)
    assert terms.shape == (len(params), N_SAMPLES, N_SAMPLES)
    assert_close(empirical_ntk(params, x), terms.sum(axis=0), rtol=1e-14)


@often
@given(architectures, seeds)
def test_the_kernel_and_its_layer_terms_are_symmetric_and_positive_semidefinite(widths, seed):
    params, x = draw(widths, seed)
    k = empirical_ntk(params, x)
    for matrix in (k, *layer_ntks(params, x)):
        assert_close(matrix, matrix.T, rtol=1e-14)
        assert smallest_eigenvalue(matrix) >= -1e-13 * np.trace(k)


@often
@given(architectures, seeds, st.permutations(range(N_SAMPLES)))
def test_permuting_the_samples_permutes_the_kernel(widths, seed, order):
    params, x = draw(widths, seed)
    order = np.array(order)
    k = np.asarray(empirical_ntk(params, x))
    assert_close(empirical_ntk(params, x[order]), k[np.ix_(order, order)])


def test_permuting_the_neurons_of_a_layer_leaves_the_kernel_as_it_is(key):
    (w_1, w_2, w_3), x = draw((5, 40, 4, 1), 0)
    order = jax.random.permutation(key, 40)
    permuted = empirical_ntk((w_1[:, order], w_2[order], w_3), x)
    assert_close(permuted, empirical_ntk((w_1, w_2, w_3), x))


@often
@given(architectures, seeds, st.data(), st.floats(0.1, 10))
def test_scaling_one_weight_matrix_scales_all_layer_terms_but_its_own(widths, seed, data, factor):
    layer = data.draw(st.integers(0, len(widths) - 2))
    params, x = draw(widths, seed)
    scaled = [factor * w if k == layer else w for k, w in enumerate(params)]
    factors = np.full(len(params), factor**2)
    factors[layer] = 1
    for actual, term, c in zip(layer_ntks(scaled, x), layer_ntks(params, x), factors, strict=True):
        assert_close(actual, c * np.asarray(term))


@pytest.mark.parametrize("widths", ARCHITECTURES)
def test_the_kernel_is_homogeneous_of_degree_l_minus_1_in_the_variances(widths):
    depth = len(widths) - 1
    params, x = draw(widths, 0)
    scaled = [np.sqrt(3.0) * np.asarray(w) for w in params]
    assert_close(empirical_ntk(scaled, x), 3.0 ** (depth - 1) * empirical_ntk(params, x))


def test_he_is_lecun_times_four_at_depth_three(key):
    x = gaussian(jax.random.key(9), N_SAMPLES, 5)
    lecun, he = (
        empirical_ntk(init_params(Network((5, 40, 4, 1), init), key), x) for init in ("lecun", "he")
    )
    assert_close(he, 4 * lecun)


@pytest.mark.parametrize("widths", ARCHITECTURES)
def test_the_kernel_is_homogeneous_of_degree_two_in_the_data(widths):
    params, x = draw(widths, 1)
    assert_close(empirical_ntk(params, 3 * x), 9 * empirical_ntk(params, x))


def test_depth_one_gives_the_gram_matrix_of_the_data_whatever_the_weights(key):
    x = np.asarray(gaussian(key, N_SAMPLES, 3))
    w = init_params(Network((3, 1)), key)
    assert_close(empirical_ntk(w, x), x @ x.T)
    assert_close(layer_ntks(w, x), [x @ x.T])


def test_one_sample_gives_the_squared_norm_of_its_gradient():
    params, x = draw((4, 6, 1), 3, n_samples=1)
    squared_norm = sum((g**2).sum() for g in jax.grad(lambda p: apply(p, x)[0])(params))
    np.testing.assert_allclose(empirical_ntk(params, x), [[squared_norm]], rtol=1e-12)


@pytest.mark.parametrize("widths", [(5, 40, 4, 1), (2, 7, 4, 3, 1)])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_all_implementations_of_neural_tangents_agree(widths, implementation):
    params, x = draw(widths, 2)
    ntk = empirical_ntk_fn(apply, implementation=implementation)
    assert_close(ntk(params, x), empirical_ntk(params, x))


@pytest.mark.parametrize("function", [empirical_ntk, layer_ntks])
def test_jit_and_vmap_over_weights_change_nothing(function):
    draws = [draw((4, 6, 1), seed) for seed in range(3)]
    x = draws[0][1]
    one_by_one = np.stack([function(params, x) for params, _ in draws])
    stacked = jax.tree.map(lambda *w: jnp.stack(w), *[params for params, _ in draws])
    assert_close(jax.vmap(function, in_axes=(0, None))(stacked, x), one_by_one)
    assert_close(jax.jit(function)(draws[0][0], x), one_by_one[0])


@pytest.mark.parametrize("function", [empirical_ntk, layer_ntks])
def test_numpy_lists_and_jax_arrays_give_the_same_kernel(function):
    params, x = draw((4, 6, 1), 4)
    expected = function(params, x)
    as_numpy = function([np.asarray(w) for w in params], np.asarray(x))
    as_lists = function(tuple(w.tolist() for w in params), x.tolist())
    np.testing.assert_array_equal(as_numpy, expected)
    np.testing.assert_array_equal(as_lists, expected)
    assert expected.dtype == jnp.float64


# --- tiles, chunks, batches -----------------------------------------------------------------------


@pytest.fixture(params=["in NumPy", "compiled"])
def both_ways(request, monkeypatch):
    """Once as it is on a processor, once compiled as for an accelerator."""
    if request.param == "compiled":
        monkeypatch.setattr(networks, "_in_numpy", lambda *_: False)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(("n_samples", "widths"), [(600, (3, 7, 5, 1)), (700, (3, 1))])
def test_tiles_give_the_sum_of_hadamard_products(n_samples, widths):
    assert_sums_of_hadamard_products(*draw(widths, seed=0, n_samples=n_samples))


@pytest.mark.parametrize(
    ("n_samples", "widths"),
    [
        (130, (3, 33000, 2, 1)),  # a wide layer in chunks: the first,
        (130, (3, 2, 33000, 1)),  # the last,
        (530, (3, 8000, 40, 8001, 5, 1)),  # two of them, one not divided evenly, and tiles
    ],
)
def test_chunks_give_the_sum_of_hadamard_products(n_samples, widths):
    assert_sums_of_hadamard_products(*draw(widths, seed=0, n_samples=n_samples))


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("n", [33001, 34000])
def test_chunks_of_neurons_that_nothing_switches_off_are_each_counted_once(n):
    # σ(0) = 1/2: a neuron too many would show
    assert_sums_of_hadamard_products(
        *draw((3, n, 2, 1), seed=0, n_samples=130), activation=jax.nn.sigmoid
    )


def assert_sums_of_hadamard_products(params, x, **activation):
    matrices = zip(
        feature_matrices(params, x, **activation),
        backward_matrices(params, x, **activation),
        strict=True,
    )
    grams = [(f @ f.T) * (b @ b.T) for f, b in matrices]
    assert_close(empirical_ntk(params, x, **activation), sum(grams), rtol=1e-14)
    assert_close(layer_ntks(params, x, **activation), np.array(grams), rtol=1e-14)


@pytest.mark.usefixtures("both_ways")
def test_a_tiled_kernel_is_symmetric_to_the_last_bit():
    k = np.asarray(empirical_ntk(*draw((3, 7, 5, 1), seed=0, n_samples=600)))
    assert (k == k.T).all()


@pytest.mark.parametrize(
    ("widths", "streams"),
    [
        ((4, 9000, 3, 1), [True, False]),
        ((4, 100, 3, 1), [False, False]),  # small
        ((4, 9000, 9000, 3, 1), [False, True, False]),  # one of the two must be held
        ((4, 20000, 9000, 3, 1), [True, False, False]),
        ((4, 9000, 20000, 1), [False, True]),
    ],
)
def test_layers_that_are_large_and_wider_than_their_neighbours_stream(widths, streams):
    params = [jax.ShapeDtypeStruct(shape, float) for shape in itertools.pairwise(widths)]
    assert [kernels._streams(params, k, 1000) for k in range(1, len(params))] == streams
    x = jax.ShapeDtypeStruct((1000, 4), float)
    k = jax.eval_shape(kernels._empirical_ntk, params, x, ((0, 1000),), activations.relu)
    assert k.shape == (1000, 1000)


def temporary_bytes(n_samples, width):
    """What XLA sets aside for a kernel with one wide layer, apart from weights and result."""
    shapes = itertools.pairwise((8, width, 8, 1))
    params = tuple(jax.ShapeDtypeStruct(shape, float) for shape in shapes)
    x = jax.ShapeDtypeStruct((n_samples, 8), float)
    blocks = kernels.row_blocks(n_samples)
    compiled = kernels._empirical_ntk.lower(params, x, blocks, activations.relu).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_n_samples_times_width():
    narrower, wider = (temporary_bytes(1000, width) for width in (2**16, 2**18))
    rearranged_weights = 2 * 8 * 8 * 2**18
    assert wider < narrower + 2 * rearranged_weights
    assert wider < 8 * 1000 * 2**18 / 5  # F_1 alone would be five times as large


def test_many_draws_can_be_batched(key):
    widths, x = (4, 30, 5, 1), gaussian(key, 7, 4)
    keys = jax.random.split(key, 6)

    def of_one(key):
        return empirical_ntk(init_params(Network(widths), key), x)

    batched = jax.vmap(of_one)(keys)
    assert_close(batched, np.array([of_one(key) for key in keys]))


# --- the limit ------------------------------------------------------------------------------------


def limit_by_recursion(x, depth):
    """K^(L) from the closed forms of the Gaussian expectations."""
    norms = np.outer(*2 * [np.linalg.norm(x, axis=1)])
    g = k = x @ x.T
    for _ in range(depth - 1):
        cosine = g / norms
        np.fill_diagonal(cosine, 1.0)  # exactly, since arccos turns rounding ε into √ε there
        angle = np.arccos(cosine)
        g = norms * (np.sin(angle) + (np.pi - angle) * cosine) / np.pi
        k = k * (np.pi - angle) / np.pi + g
    return k


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_limit_follows_the_recursion(depth, key):
    x = np.asarray(gaussian(key, N_SAMPLES, 5))
    actual, expected = limiting_ntk(x, depth=depth), limit_by_recursion(x, depth)
    off_diagonal = ~np.eye(N_SAMPLES, dtype=bool)
    assert_close(actual[off_diagonal], expected[off_diagonal])
    assert_close(np.diagonal(actual), np.diagonal(expected), rtol=1e-7)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_diagonal_of_the_limit_is_depth_times_the_squared_norms(depth, key):
    x = np.asarray(gaussian(key, N_SAMPLES, 5))
    k = np.asarray(limiting_ntk(x, depth=depth))
    np.testing.assert_allclose(np.diagonal(k), depth * (x**2).sum(axis=1), rtol=1e-7)


def test_limit_of_depth_one_is_the_gram_matrix(key):
    x = np.asarray(gaussian(key, N_SAMPLES, 5))
    assert_close(limiting_ntk(x, depth=1), x @ x.T, rtol=1e-14)


def test_limit_is_symmetric_and_positive_definite_on_distinct_directions(key):
    k = np.asarray(limiting_ntk(uniform_sphere(key, N_SAMPLES, 5), depth=3))
    assert_close(k, k.T, rtol=1e-14)
    assert smallest_eigenvalue(k) > 0.01 * np.trace(k) / N_SAMPLES


def test_limit_depends_on_angles_and_norms_alone(key):
    x = np.asarray(gaussian(key, N_SAMPLES, 5))
    rotation, _ = np.linalg.qr(np.asarray(gaussian(jax.random.key(7), 5, 5)))
    k = np.asarray(limiting_ntk(x, depth=3))
    assert_close(limiting_ntk(x @ rotation, depth=3), k, rtol=1e-7)
    norms = np.array([1.0, 2.0, 0.5, 3.0, 0.1, 1.0])
    assert_close(limiting_ntk(x * norms[:, None], depth=3), k * np.outer(norms, norms), rtol=1e-7)


def test_wide_networks_approach_the_limit_at_the_rate_of_a_square_root(key):
    key_x, key_w = jax.random.split(key)
    x = uniform_sphere(key_x, N_SAMPLES, 5)
    errors = [mean_error_to_limit(x, width, key_w) for width in (16, 128, 1024)]
    assert errors[0] > errors[1] > errors[2]
    assert 4 < errors[0] / errors[2] < 16  # √64 = 8


def mean_error_to_limit(x, width, key, n_draws=8):
    """Relative error of K̄ ∏ 2/n_l to K^(3), weights of variance 1."""
    network = Network((x.shape[1], width, width, 1), init=(1.0, 1.0, 1.0))
    limit = np.asarray(limiting_ntk(x, depth=3))
    draws = [
        np.asarray(empirical_ntk(init_params(network, k), x)) * (2 / width) ** 2
        for k in jax.random.split(key, n_draws)
    ]
    return np.mean([np.linalg.norm(k - limit) for k in draws]) / np.linalg.norm(limit)


def test_monte_carlo_kernel_of_neural_tangents_approaches_the_limit():
    from ntk_utils.compat import neural_tangents as nt

    width, n_draws = 128, 100
    x = uniform_sphere(jax.random.key(0), 4, 5)
    init_fn, apply_fn, _ = as_stax(Network((5, width, width, 1), init=(1.0, 1.0, 1.0)))
    mean_kernel = nt.monte_carlo_kernel_fn(
        init_fn,
        apply_fn,
        jax.random.key(1),
        n_draws,
        trace_axes=(-1,),
        vmap_axes=0,
        implementation=nt.NtkImplementation.JACOBIAN_CONTRACTION,
    )
    # one draw of width 128 is off by 0.1, the mean of a hundred by 0.01 and a bias of 1/128
    assert_close(mean_kernel(x, None, "ntk") * (2 / width) ** 2, limiting_ntk(x, depth=3), 0.05)


# --- the limit, layer by layer --------------------------------------------------------------------

WITH_UNEVEN_WIDTHS_AND_BETAS = [
    Network((5, 1), (0.7,)),
    Network((5, 30, 1), (0.5, 1.5)),
    Network((5, 40, 7, 300, 1), (0.5, 0.3, 1.5, 2.0)),
    Network((5, 12, 90, 1), "lecun"),
    Network((5, 90, 12, 1), "he"),
]


def angles(x):
    """The angles between samples, and the products of their norms."""
    scale = np.outer(*2 * [np.linalg.norm(x, axis=1)])
    cosine = x @ x.T / scale
    np.fill_diagonal(cosine, 1.0)
    return np.arccos(cosine), scale


def value(angle):
    return (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi


def derivative(angle):
    return 1 - angle / np.pi


def test_layer_terms_of_the_limit_are_their_closed_forms_up_to_depth_three(key):
    x = np.asarray(gaussian(key, N_SAMPLES, 5))
    theta, scale = angles(x)
    phi = np.arccos(np.minimum(value(theta), 1))
    c, d_1, d_2 = np.cos(theta), derivative(theta), derivative(phi)
    expected = {
        1: [c],
        2: [c * d_1, value(theta)],
        3: [c * d_1 * d_2, value(theta) * d_2, value(phi)],
    }
    for depth, terms in expected.items():
        actual = limiting_layer_ntks(x, depth=depth)
        assert actual.shape == (depth, N_SAMPLES, N_SAMPLES)
        # arccos near 1 costs half of the digits: a diagonal of 1 + ε is what it costs here
        assert_close(actual, scale * np.array(terms), rtol=1e-7)
        off_diagonal = ~np.eye(N_SAMPLES, dtype=bool)
        assert_close(actual[:, off_diagonal], (scale * np.array(terms))[:, off_diagonal])


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_layer_terms_of_the_limit_sum_to_the_limit_of_neural_tangents(depth, key):
    x = gaussian(key, N_SAMPLES, 5)
    assert_close(
        limiting_layer_ntks(x, depth=depth).sum(axis=0), limiting_ntk(x, depth=depth), 1e-7
    )


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_the_diagonal_of_every_layer_term_of_the_limit_is_the_squared_norm(depth, key):
    x = np.asarray(gaussian(key, N_SAMPLES, 5))
    diagonals = np.diagonal(limiting_layer_ntks(x, depth=depth), axis1=1, axis2=2)
    expected = np.broadcast_to((x**2).sum(axis=1), (depth, N_SAMPLES))
    np.testing.assert_allclose(diagonals, expected, rtol=1e-14)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_layer_terms_of_the_limit_are_positive_semidefinite_and_definite_behind_a_relu(depth, key):
    terms = limiting_layer_ntks(uniform_sphere(key, 12, 5), depth=depth)
    for k, term in enumerate(terms):
        np.testing.assert_array_equal(term, term.T)
        assert smallest_eigenvalue(term) > (1e-3 if depth > 1 else -1e-13), k
    if depth == 1:  # the Gram matrix of more samples than dimensions
        assert smallest_eigenvalue(terms[0]) < 1e-13


def test_a_zero_sample_has_zero_rows_in_every_layer_term_of_the_limit(key):
    x = gaussian(key, N_SAMPLES, 5)
    terms = limiting_layer_ntks(x.at[2].set(0.0), depth=3)
    assert not terms[:, 2].any()
    assert not terms[:, :, 2].any()
    kept = np.delete(np.arange(N_SAMPLES), 2)
    np.testing.assert_array_equal(terms[:, kept][:, :, kept], limiting_layer_ntks(x[kept], depth=3))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_layer_terms_of_the_limit_depend_on_angles_and_norms_alone(depth, key):
    x = np.asarray(gaussian(key, N_SAMPLES, 5))
    terms = limiting_layer_ntks(x, depth=depth)
    norms = np.array([1.0, 2.0, 0.5, 3.0, 1e-3, 1e3])
    scaled = limiting_layer_ntks(norms[:, None] * x, depth=depth)
    # repeated rescaling of the norms rounds the cosines on the diagonal, which are 1 by definition
    np.testing.assert_allclose(scaled, np.outer(norms, norms) * terms, rtol=1e-9)
    rotation, _ = np.linalg.qr(np.asarray(gaussian(jax.random.key(7), 5, 5)))
    assert_close(limiting_layer_ntks(x @ rotation, depth=depth), terms)


def test_samples_that_point_the_same_way_have_parallel_rows_in_every_layer_term(key):
    x = gaussian(key, N_SAMPLES, 5)
    terms = limiting_layer_ntks(x.at[4].set(3.0 * x[1]), depth=4)
    np.testing.assert_allclose(terms[:, 4], 3 * terms[:, 1], rtol=1e-6)


def test_opposite_samples_meet_at_no_neuron_of_a_layer_behind_them(key):
    x = gaussian(key, N_SAMPLES, 5)
    terms = limiting_layer_ntks(x.at[4].set(-x[1]), depth=2)
    assert np.abs(terms[:, 1, 4]).max() < 1e-7 * terms.max()


@pytest.mark.parametrize("d", [3, 20])
def test_very_deep_limits_forget_the_data(d, key):
    # K^(L)/(Ld) tends to 3/4 I + 1/4 11ᵀ: the gates in front of layer l tend to 1 - 3/l
    depth, n_samples = 2048, 8
    k = limiting_layer_ntks(uniform_sphere(key, n_samples, d), depth=depth).sum(axis=0)
    assert_close(k / (depth * d), 0.75 * np.eye(n_samples) + 0.25, rtol=0.03)


@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize("betas", [(1.0, 1.0), (0.5, 1.5)])
def test_at_depth_two_the_wide_terms_are_the_mean_of_the_layer_terms_at_any_width(n, betas):
    x = gaussian(jax.random.key(n), 4, 3)
    rng, n_draws = np.random.default_rng(n), 20_000
    w_1 = betas[0] * rng.normal(size=(n_draws, 3, n))
    w_2 = betas[1] * rng.normal(size=(n_draws, n, 1))
    draws = np.asarray(jax.jit(jax.vmap(layer_ntks, in_axes=(0, None)))((w_1, w_2), x))
    standard_error = draws.std(axis=0) / math.sqrt(n_draws)
    expected = wide_layer_ntks(Network((3, n, 1), betas), x)
    assert (np.abs(draws.mean(axis=0) - expected) < 5 * standard_error + 1e-12).all()
    if betas == (1.0, 1.0):
        np.testing.assert_allclose(expected, n / 2 * limiting_layer_ntks(x, depth=2), rtol=1e-12)


@pytest.mark.parametrize("widths", [(5, 3000, 1000, 1), (5, 1000, 3000, 1)])
def test_layer_terms_of_wide_networks_are_close_to_the_wide_terms_layer_by_layer(widths, key):
    network = Network(widths, (0.5, 0.3, 1.5))
    x = gaussian(jax.random.key(9), N_SAMPLES, 5)
    wide = wide_layer_ntks(network, x)
    for actual, expected in zip(layer_ntks(init_params(network, key), x), wide, strict=True):
        assert np.linalg.norm(actual - expected) < 0.15 * np.linalg.norm(expected)


@pytest.mark.parametrize("network", WITH_UNEVEN_WIDTHS_AND_BETAS, ids=lambda n: str(n.widths))
def test_wide_layer_terms_sum_to_the_kernel_of_neural_tangents(network, key):
    x = gaussian(key, N_SAMPLES, 5)
    _, _, kernel_fn = as_stax(network)
    assert_close(wide_layer_ntks(network, x).sum(axis=0), kernel_fn(x, None, "ntk"), rtol=1e-7)


@pytest.mark.parametrize("network", WITH_UNEVEN_WIDTHS_AND_BETAS, ids=lambda n: str(n.widths))
def test_the_diagonal_of_every_wide_layer_term_is_its_exact_mean(network, key):
    x = gaussian(key, N_SAMPLES, 5)
    diagonals = np.diagonal(wide_layer_ntks(network, x), axis1=1, axis2=2)
    np.testing.assert_allclose(diagonals, mean_layer_diagonals(network, x), rtol=1e-12)


# --- any other architecture -----------------------------------------------------------------------


def tanh_network(params, x):
    """Two outputs, biases, and samples that are 2 × 3 arrays."""
    w_1, b_1, w_2 = params["w_1"], params["b_1"], params["w_2"]
    return jnp.tanh(x.reshape(len(x), 6) @ w_1 + b_1) @ w_2


def tanh_params_and_samples():
    keys = jax.random.split(jax.random.key(5), 4)
    shapes = {"w_1": (6, 7), "b_1": (1, 7), "w_2": (7, 2)}
    params = {
        name: jax.random.normal(key, shape)
        for (name, shape), key in zip(shapes.items(), keys[:3], strict=True)
    }
    return params, jax.random.normal(keys[3], (4, 2, 3))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_kernel_of_another_network_is_the_mean_over_its_outputs(implementation):
    params, x = tanh_params_and_samples()
    jacobian = jax.jacrev(tanh_network)(params, x)
    flat = jnp.concatenate([j.reshape(4, 2, -1) for j in jax.tree.leaves(jacobian)], axis=2)
    expected = jnp.einsum("ncp,mcp->nm", flat, flat) / 2
    actual = empirical_ntk_fn(tanh_network, implementation=implementation)(params, x)
    assert actual.shape == (4, 4)
    assert_close(actual, expected)


# --- what notebook 01 compares comes out different when the decomposition is wrong ----------------


def test_a_last_term_that_is_n_times_too_small_is_told_apart(monkeypatch, key):
    """Version 5 of arXiv:2012.11654 prints B_L = 1/√N instead of 1."""
    params = init_params(Network((5, 9, 4, 1)), key)
    x = gaussian(key, N_SAMPLES, 5)
    expected = layer_terms_from_jacobian(params, x)
    right = kernels._layer_terms

    def as_printed(*args):
        *terms, last = right(*args)
        return [*terms, [tile / N_SAMPLES for tile in last]]

    assert_close(layer_ntks(params, x), expected)
    monkeypatch.setattr(kernels, "_layer_terms", as_printed)
    for computed, exact in (
        (layer_ntks(params, x), expected),
        (empirical_ntk(params, x), expected.sum(axis=0)),
    ):
        assert np.linalg.norm(computed - exact) > 0.1 * np.linalg.norm(exact)


# --- the limit at any scale and angle, against 60 digits ------------------------------------------

BASES = (0.0, 0.3, 1.1, np.pi / 2, 2.7)


def two_directions(base, angle):
    return np.array([[math.cos(base + a), math.sin(base + a)] for a in (0.0, angle)])


@pytest.mark.parametrize("depth", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [1e-150, 1e-77, 1.0, 1e77, 1e150])
def test_diagonal_of_the_limit_is_right_to_its_last_digits_at_any_scale(size, depth):
    x = size * np.random.default_rng(3).normal(size=(6, 3))
    found = np.diagonal(limiting_ntk(x, depth=depth))
    with mpmath.workdps(40):
        for row, entry in zip(x, found, strict=True):
            exact = depth * mpmath.fsum(mpmath.mpf(float(v)) ** 2 for v in row)
            assert abs(mpmath.mpf(float(entry)) / exact - 1) <= 4 * 2.0**-52 * depth


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("size", [1e-150, 1e-78, 1.0, 1e77, 1e150])
def test_smallest_eigenvalue_of_the_limit_is_right_at_an_angle_of_1e_9(size, depth):
    for base in BASES:
        for angle in (1e-9, 1e-7, 0.0141, 0.0142, 0.3):  # on both sides of where the series begins
            x = size * two_directions(base, angle)
            exact = truth.lambda_min(truth.limiting(x, depth)[0])
            terms = limiting_layer_ntks(x, depth=depth)
            for k in (limiting_ntk(x, depth=depth), terms.sum(axis=0)):
                assert abs(smallest_eigenvalue(k) / exact - 1) < 1e-6, (base, angle)


@pytest.mark.parametrize("size", [1e-150, 1e-76, 1e77, 1e150])
def test_the_limit_of_scaled_samples_is_the_scaled_limit(size):
    x = np.random.default_rng(3).normal(size=(4, 3))
    k = np.asarray(limiting_ntk(size * x, depth=3)) / size / size
    np.testing.assert_allclose(k, limiting_ntk(x, depth=3), rtol=1e-14)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1e-150, 1.0, 1e150])
def test_every_entry_of_the_limit_agrees_with_60_digits(size, depth):
    x = np.random.default_rng(0).normal(size=(5, 3))
    x[1], x[2], x[3] = -x[0], 2 * x[0], x[0] + 1e-9
    x[4] = -x[0] + 1e-6
    exact = truth.limiting(size * x, depth)[0]
    exact = np.array([[float(exact[i, j] / size / size) for j in range(5)] for i in range(5)])
    terms = limiting_layer_ntks(size * x, depth=depth)
    for k in (limiting_ntk(size * x, depth=depth), terms.sum(axis=0)):
        assert_close(np.asarray(k) / size / size, exact, rtol=1e-14)


@pytest.mark.parametrize("depth", [2, 3])
def test_opposite_and_nearly_opposite_samples_have_the_eigenvalue_of_60_digits(depth):
    for base in BASES:
        for angle in (np.pi, np.pi - 1e-9, np.pi - 0.01):
            x = two_directions(base, angle)
            exact = truth.lambda_min(truth.limiting(x, depth)[0])
            found = smallest_eigenvalue(limiting_ntk(x, depth=depth))
            assert found == pytest.approx(float(exact), rel=1e-13)


# --- one precision --------------------------------------------------------------------------------

LOW = {
    "float32, mean 5": lambda x: (5 + x).astype(np.float32),
    "float32, mean 100": lambda x: (100 + x).astype(np.float32),
    "float16": lambda x: x.astype(np.float16),
    "bfloat16": lambda x: x.astype(jnp.bfloat16),
    "integers": lambda x: (9 * x).astype(np.int8),
    "bool": lambda x: x > 0,
    "DataFrame": pd.DataFrame,
    "JAX, float32": lambda x: jnp.asarray(x, dtype=jnp.float32),
}


@pytest.mark.parametrize("kind", LOW)
def test_samples_of_any_type_have_the_kernel_of_their_float64_copy(kind):
    params = init_params(Network((5, 100, 1), "he"), jax.random.key(1))
    x = LOW[kind](np.asarray(gaussian(jax.random.key(0), 60, 5)))
    copy = np.asarray(x).astype(np.float64)
    for of in (functools.partial(empirical_ntk, params), functools.partial(limiting_ntk, depth=2)):
        k = of(x)
        assert k.dtype == np.float64
        np.testing.assert_array_equal(k, of(copy))
