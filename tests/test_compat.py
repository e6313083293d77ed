"""Importing: what it loads, what it leaves alone, and that neural-tangents works afterwards."""

import functools
import importlib
import json
import os
import subprocess
import sys

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from flax import linen, nnx

from ntk_utils import (
    Network,
    apply,
    as_stax,
    compat,
    empirical_ntk,
    empirical_ntk_fn,
    gaussian,
    init_params,
)

N_SAMPLES, D = 5, 4


def in_a_fresh_python(code):
    """Run code that ends by printing one JSON value, in a Python that has imported nothing yet."""
    completed = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout)


# --- what an import loads and leaves alone --------------------------------------------------------


@pytest.fixture(scope="module")
def plain_import():
    return in_a_fresh_python("""
import json, sys, jax
before = jax.config.jax_enable_x64
import ntk_utils
heavy = {"tensorflow", "tf2jax", "pandas", "seaborn", "matplotlib", "sklearn", "neural_tangents"}
loaded = sorted(heavy & set(sys.modules))
dtype = str(jax.numpy.ones(1).dtype)
print(json.dumps([before, jax.config.jax_enable_x64, dtype, loaded, sorted(dir(ntk_utils))]))
""")


def test_importing_ntk_utils_loads_no_heavy_library(plain_import):
    _, _, _, loaded, _ = plain_import
    assert loaded == []


def test_importing_ntk_utils_switches_double_precision_on(plain_import):
    before, after, dtype, _, _ = plain_import
    assert (before, after, dtype) == (False, True, "float64")


def test_names_that_are_not_loaded_yet_are_listed(plain_import):
    *_, names = plain_import
    assert {"empirical_ntk", "plotting", "sweep"} <= set(names)


@pytest.fixture(scope="module")
def after_loading_neural_tangents():
    return in_a_fresh_python("""
import importlib, json, sys, jax
import ntk_utils
places = [
    importlib.import_module(name)
    for name in ("jax.core", "jax.interpreters.ad", "jax.extend", "jax.interpreters.xla", "jax")
]
before = [dict(vars(place)) for place in places]
import ntk_utils.compat
without_loading = "neural_tangents" in sys.modules
from ntk_utils.compat import neural_tangents as nt
# submodules that an import binds in their package are no change of the names that were there
changed = [
    f"{place.__name__}.{name}"
    for place, names in zip(places, before)
    for name in {*names, *vars(place)}
    if names.get(name) is not vars(place).get(name)
    and f"{place.__name__}.{name}" not in sys.modules
]
import neural_tangents
print(json.dumps({
    "changed": sorted(changed),
    "loaded without being asked for": without_loading,
    "heavy": sorted({"tensorflow", "tf2jax"} & set(sys.modules)),
    "jax.util": "jax.util" in sys.modules,
    "same module": neural_tangents is nt is ntk_utils.compat.neural_tangents,
}))
""")


def test_loading_neural_tangents_leaves_the_names_of_jax_as_they_were(
    after_loading_neural_tangents,
):
    assert after_loading_neural_tangents["changed"] == []
    assert after_loading_neural_tangents["jax.util"] is False


def test_loading_neural_tangents_never_imports_tensorflow(after_loading_neural_tangents):
    assert after_loading_neural_tangents["heavy"] == []


def test_neural_tangents_is_loaded_when_first_asked_for_and_once(after_loading_neural_tangents):
    assert after_loading_neural_tangents["loaded without being asked for"] is False
    assert after_loading_neural_tangents["same module"] is True


def test_borrowed_names_exist_while_they_are_needed_and_no_longer():
    places = [(importlib.import_module(place), name) for place, name in compat._MOVED]
    there_before = [hasattr(place, name) for place, name in places]
    assert not all(there_before)
    with compat._names_put_back():
        assert all(hasattr(place, name) for place, name in places)
        assert "jax.util" in sys.modules
    assert [hasattr(place, name) for place, name in places] == there_before


def test_borrowed_names_are_given_back_after_an_error():
    with pytest.raises(ZeroDivisionError), compat._names_put_back():
        raise ZeroDivisionError
    assert "Jaxpr" not in vars(jax.core)
    assert "jax.util" not in sys.modules


@pytest.mark.parametrize(("place", "name"), [*compat._MOVED, compat._DROPPED])
def test_a_name_that_jax_still_has_is_not_replaced(place, name, monkeypatch):
    module, of_jax = importlib.import_module(place), object()
    monkeypatch.setattr(module, name, of_jax, raising=False)
    with compat._names_put_back():
        assert getattr(module, name) is of_jax
    assert getattr(module, name) is of_jax


@pytest.mark.parametrize("version", ["0.4.28", "0.10.1", "0.13.0", "1.0"])
def test_a_version_of_jax_that_was_not_tested_warns(version):
    with pytest.warns(UserWarning, match=rf"this is JAX {version}.*requirements\.lock"):
        compat._warn_if_untested(version)


@pytest.mark.parametrize("version", ["0.10.2", "0.12.0.1", "0.12.9", jax.__version__])
def test_a_tested_version_of_jax_does_not_warn(version):
    compat._warn_if_untested(version)  # a warning is an error in these tests


def test_an_unknown_name_of_compat_is_an_attribute_error():
    with pytest.raises(AttributeError, match="tensorflow"):
        compat.tensorflow  # noqa: B018


# --- neural-tangents at work ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def nt():
    from ntk_utils.compat import neural_tangents

    return neural_tangents


@pytest.fixture(scope="module")
def problem():
    """Weights, samples, labels of a small network, and its empirical kernel."""
    key_x, key_w = jax.random.split(jax.random.key(0))
    x = gaussian(key_x, N_SAMPLES, D)
    params = init_params(Network((D, 20, 1), "he"), key_w)
    y = jnp.sin(jnp.arange(float(N_SAMPLES)))
    return params, x, y, empirical_ntk(params, x)


def test_linearize_is_the_first_order_taylor_expansion_in_the_weights(nt, problem):
    params, x, _, _ = problem
    step = jax.tree.map(lambda w: jnp.cos(w), params)
    moved = jax.tree.map(jnp.add, params, step)
    value, slope = jax.jvp(lambda p: apply(p, x), (params,), (step,))
    linear = nt.linearize(apply, params)
    np.testing.assert_allclose(linear(moved, x), value + slope, rtol=1e-12)
    np.testing.assert_allclose(linear(params, x), value, rtol=1e-12)


@pytest.mark.parametrize("time", [0.0, 0.3, 10.0])
def test_gradient_descent_mse_solves_the_linear_differential_equation(time, nt, problem):
    params, x, y, k = problem
    f_0 = apply(params, x)
    predict = nt.predict.gradient_descent_mse(k, y[:, None])
    f_t, _ = predict(time, f_0[:, None], jnp.zeros((1, 1)), jnp.zeros((1, N_SAMPLES)))
    residual = scipy.linalg.expm(-time * np.asarray(k) / N_SAMPLES) @ np.asarray(f_0 - y)
    np.testing.assert_allclose(f_t[:, 0], y + residual, rtol=1e-9, atol=1e-9)


def test_gradient_descent_mse_takes_a_kernel_that_is_traced(nt, problem):
    _, _, y, k = problem
    f_0 = jnp.zeros((N_SAMPLES, 1))

    def loss(scale, time):
        f_t = nt.predict.gradient_descent_mse(scale * k, y[:, None])(time, f_0, None, None)
        return ((f_t[:, 0] - y) ** 2).sum()

    for time in (0.3, None):  # None: to the end
        expected = [float(loss(scale, time)) for scale in (1.0, 2.0)]
        assert float(jax.jit(loss, static_argnums=1)(2.0, time)) == pytest.approx(expected[1])
        found = jax.vmap(loss, in_axes=(0, None))(jnp.array([1.0, 2.0]), time)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-20)
    step = 1e-5
    slope = (loss(1 + step, 0.3) - loss(1 - step, 0.3)) / (2 * step)
    assert float(jax.grad(loss)(1.0, 0.3)) == pytest.approx(float(slope), rel=1e-6)
    assert slope < 0


def test_max_learning_rate_is_two_over_the_largest_eigenvalue_of_the_mean_loss(nt, problem):
    _, _, _, k = problem
    largest = np.linalg.eigvalsh(k)[-1]
    rate = nt.predict.max_learning_rate(k, y_train_size=N_SAMPLES)
    np.testing.assert_allclose(rate, 2 * N_SAMPLES / largest, rtol=1e-9)


def test_monte_carlo_kernel_of_weights_that_do_not_vary_is_their_empirical_kernel(nt, problem):
    params, x, _, k = problem
    _, apply_fn, _ = as_stax(Network((D, 20, 1), "he"))
    mean_kernel = nt.monte_carlo_kernel_fn(
        lambda key, shape: (shape, [(params[0], None), (), (params[1], None)]),  # noqa: ARG005
        apply_fn,
        jax.random.key(3),
        n_samples=4,
        trace_axes=(-1,),
        vmap_axes=0,
        implementation=nt.NtkImplementation.JACOBIAN_CONTRACTION,
    )
    np.testing.assert_allclose(mean_kernel(x, None, "ntk"), k, rtol=1e-10)


def test_the_first_use_from_several_threads_at_once_loads_neural_tangents_once():
    found = in_a_fresh_python("""
import importlib.util, json, threading
import jax, numpy as np, ntk_utils
x = ntk_utils.uniform_sphere(jax.random.key(0), 3, 3)
start, values, errors, modules = threading.Barrier(8), [], [], []
def first_use(n):
    start.wait()
    try:
        values.append(ntk_utils.smallest_eigenvalue(ntk_utils.limiting_ntk(x, depth=2)))
        modules.append(ntk_utils.compat.neural_tangents)
    except BaseException as error:
        errors.append(repr(error))
threads = [threading.Thread(target=first_use, args=(n,)) for n in range(8)]
[t.start() for t in threads], [t.join() for t in threads]
spec = importlib.util.find_spec("neural_tangents.experimental")
print(json.dumps({
    "values": sorted(set(values)),
    "n": len(values),
    "errors": errors,
    "modules": len(set(map(id, modules))),
    "stand-in": spec.name,
}))
""")
    assert found["errors"] == []
    assert found["n"] == 8
    assert len(found["values"]) == 1
    assert found["modules"] == 1
    assert found["stand-in"] == "neural_tangents.experimental"


# --- STRUCTURED_DERIVATIVES, which goes through the equations of a derivative ---------------------

X = np.random.default_rng(0).normal(size=(4, 3, 6))
W = np.random.default_rng(1).normal(size=(3, 6))
IMAGES = np.random.default_rng(2).normal(size=(3, 8, 8, 2))


def conv(w, x, **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    options = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": numbers} | options
    return jax.lax.conv_general_dilated(x, w, **options)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape) / np.sqrt(np.prod(shape[:-1]))


# each primitive for which neural-tangents has a rule, with the weights on their way through it
PRIMITIVES = {
    "dot_general": lambda w, x: jnp.einsum("njk,lk->njl", x, w),
    "dot_general, batched": lambda w, x: jnp.einsum("njk,jk->nj", x, w),
    "add": lambda w, x: (w + x) ** 2,
    "sub": lambda w, x: (x - w) ** 3,
    "mul": lambda w, x: x * w,
    "div": lambda w, x: w / (2 + jnp.cos(x)),
    "neg": lambda w, x: jnp.tanh(-w) * x,
    "concatenate": lambda w, x: jnp.concatenate([x * w, w[None] + x], axis=1),
    "split": lambda w, x: jnp.split(x * w, 3, axis=2)[1],
    "rev": lambda w, x: jnp.flip(w, 1) * x,
    "broadcast_in_dim": lambda w, x: jnp.broadcast_to(w.sum(), x.shape) * x,
    "reduce_sum": lambda w, x: (x * w).sum(axis=2),
    "reduce_window_sum": lambda w, x: jax.lax.reduce_window(
        x * w, 0.0, jax.lax.add, (1, 2, 2), (1, 1, 2), "VALID"
    ),
    "reduce_window_sum, dilated": lambda w, x: jax.lax.reduce_window(
        x * w,
        0.0,
        jax.lax.add,
        (1, 1, 2),
        (1, 1, 1),
        ((0, 0), (0, 1), (2, 1)),
        (1, 2, 1),
        (1, 1, 2),
    ),
    "pad": lambda w, x: jnp.pad(x * w, ((0, 0), (1, 2), (0, 1))),
    "reshape": lambda w, x: (w.reshape(-1) * x.reshape(len(x), -1)).reshape(len(x), 2, 9),
    "squeeze": lambda w, x: jnp.squeeze((x * w)[:, :1], 1),
    "transpose": lambda w, x: (w.T[None] * x.transpose(0, 2, 1)).transpose(0, 2, 1),
    "convert_element_type": lambda w, x: w.astype(jnp.float32).astype(jnp.float64) * x,
    "copy": lambda w, x: jnp.copy(w) * x,
    "conv_general_dilated": lambda w, x: conv(w.reshape(3, 3, 1, 2), x[..., None]),
}


def dense(w, x):
    return jax.nn.relu(x @ w)


def conv_net(params, x):
    for w in params[:-1]:
        x = jax.nn.relu(conv(w, x))
        x = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
    return x.reshape(len(x), -1) @ params[-1]


def residual_net(params, x):
    stem, first, second, skip, last = params
    x = conv(stem, x)
    inside = conv(second, jax.nn.relu(conv(first, jax.nn.relu(x), window_strides=(2, 2))))
    return (conv(skip, x, window_strides=(2, 2)) + inside).mean(axis=(1, 2)) @ last


def layer_norm_net(params, x):
    w, scale, shift, last = params
    x = x @ w
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return jnp.tanh(x * scale + shift).mean(axis=1) @ last


def attention_net(params, x):
    query, key, value, last = params
    weights = jax.nn.softmax(x @ query @ (x @ key).transpose(0, 2, 1) / 2, axis=-1)
    return (weights @ (x @ value)).mean(axis=1) @ last


def recurrent_net(params, x):
    inner, outer, last = params
    step = lambda h, x_t: (jnp.tanh(h @ inner + x_t @ outer), None)  # noqa: E731
    h, _ = jax.lax.scan(step, jnp.zeros((len(x), len(inner))), x.transpose(1, 0, 2))
    return h @ last


def jitted_net(params, x):
    return jax.jit(dense)(params[0], x).mean(axis=1) @ params[1]


MODELS = {
    "convolution and pooling": (
        conv_net,
        (normal(0, 3, 3, 2, 4), normal(1, 3, 3, 4, 5), normal(2, 20, 3)),
        IMAGES,
    ),
    "residual blocks": (
        residual_net,
        (
            normal(0, 3, 3, 2, 4),
            normal(1, 3, 3, 4, 6),
            normal(2, 3, 3, 6, 6),
            normal(3, 1, 1, 4, 6),
            normal(4, 6, 2),
        ),
        IMAGES,
    ),
    "layer normalisation": (
        layer_norm_net,
        (normal(0, 6, 5), 1 + normal(1, 5), normal(2, 5), normal(3, 5, 2)),
        X,
    ),
    "attention": (attention_net, [*(normal(i, 6, 4) for i in range(3)), normal(3, 4, 2)], X),
    "a scan over time": (recurrent_net, (normal(0, 5, 5), normal(1, 6, 5), normal(2, 5, 1)), X),
    "a function that is jitted": (jitted_net, (normal(0, 6, 7), normal(1, 7, 1)), X),
}


def kernels(nt, function, params, x, **options):
    """By STRUCTURED_DERIVATIVES and by JACOBIAN_CONTRACTION."""
    for name in ("STRUCTURED_DERIVATIVES", "JACOBIAN_CONTRACTION"):
        implementation = nt.NtkImplementation[name]
        ntk = nt.empirical_ntk_fn(
            function, trace_axes=(), vmap_axes=0, implementation=implementation, **options
        )
        with jax.numpy_rank_promotion("allow"):  # as outside of these tests
            yield np.asarray(jax.jit(ntk, static_argnums=1)(x, None, params))


@pytest.mark.parametrize("with_rules", [True, False])
@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_every_rule_of_neural_tangents_gives_the_kernel_of_the_jacobian(nt, primitive, with_rules):
    structured, expected = kernels(
        nt, PRIMITIVES[primitive], W, X, _j_rules=with_rules, _s_rules=with_rules
    )
    np.testing.assert_allclose(structured, expected, rtol=1e-6 if "type" in primitive else 1e-10)


@pytest.mark.parametrize("model", MODELS)
def test_structured_derivatives_give_the_kernel_of_the_jacobian(nt, model):
    structured, expected = kernels(nt, *MODELS[model])
    assert np.abs(structured - expected).max() < 1e-12 * np.abs(expected).max()


def equinox_mlp():
    model = equinox.nn.MLP(6, 2, 8, 2, key=jax.random.key(0))  # with biases
    params, static = equinox.partition(model, equinox.is_inexact_array)
    return lambda params, x: jax.vmap(equinox.combine(params, static))(x), params, X[:, 0]


class LinenBlock(linen.Module):
    """A residual block of convolutions, and a head."""

    @linen.compact
    def __call__(self, x):
        convolution = functools.partial(linen.Conv, kernel_size=(3, 3), param_dtype=float)
        h = linen.relu(convolution(4)(x))
        h = h + convolution(4)(linen.relu(convolution(4)(h)))
        return linen.Dense(2, param_dtype=float)(linen.avg_pool(h, (8, 8)).reshape(len(x), -1))


def linen_block():
    return LinenBlock().apply, LinenBlock().init(jax.random.key(0), IMAGES), IMAGES


class NnxBlock(nnx.Module):
    """A residual block with layer normalisation, and a head."""

    def __init__(self):
        options = {"param_dtype": float, "rngs": nnx.Rngs(0)}
        self.widen, self.narrow = nnx.Linear(6, 8, **options), nnx.Linear(8, 6, **options)
        self.norm = nnx.LayerNorm(6, **options)
        self.head = nnx.Linear(6, 2, **options)

    def __call__(self, x):
        return self.head(x + self.narrow(nnx.gelu(self.widen(self.norm(x)))))


def nnx_block():
    graph, params, rest = nnx.split(NnxBlock(), nnx.Param, ...)
    return lambda params, x: nnx.merge(graph, params, rest)(x), params, X[:, 0]


@pytest.mark.parametrize("model", [equinox_mlp, linen_block, nnx_block])
def test_structured_derivatives_give_the_kernel_of_models_of_other_libraries(model):
    outputs, params, x = model()
    found, expected = (
        empirical_ntk_fn(outputs, implementation=name)(params, x)
        for name in ("STRUCTURED_DERIVATIVES", "JACOBIAN_CONTRACTION")
    )
    assert found.dtype == float
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_auto_gives_the_same_kernel_and_prints_nothing(capsys):
    function, params, x = MODELS["convolution and pooling"]
    found, expected = (
        empirical_ntk_fn(function, implementation=name)(params, x)
        for name in ("AUTO", "JACOBIAN_CONTRACTION")
    )
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert capsys.readouterr().out == ""


def checkpointed_net(params, x):
    """One equation with two outputs, on the way of the derivative."""
    first, second = jax.checkpoint(lambda h: (jnp.sin(h), h**2))(x @ params)
    return (first * second).sum(axis=(1, 2))


def test_where_structured_derivatives_do_not_run_the_jacobian_does_and_this_is_said():
    params = normal(0, 6, 4)
    expected = empirical_ntk_fn(checkpointed_net, implementation="JACOBIAN_CONTRACTION")(params, X)
    with pytest.warns(UserWarning, match="does not run on this network, and JACOBIAN_CONTRACTION"):
        found = empirical_ntk_fn(checkpointed_net)(params, X)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    with pytest.raises(Exception, match=r"."):
        empirical_ntk_fn(checkpointed_net, implementation="STRUCTURED_DERIVATIVES")(params, X)


def test_a_primitive_without_a_rule_is_no_reason_for_the_jacobian():
    def first_weight_times_the_rest(params, x):
        return params[0] * x[:, 0] @ params[1:]

    found, expected = (
        empirical_ntk_fn(first_weight_times_the_rest, implementation=name)(normal(0, 7), X)
        for name in (None, "JACOBIAN_CONTRACTION")
    )  # and a warning is an error in these tests
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_what_is_wrong_with_a_network_is_not_taken_for_a_missing_rule():
    with pytest.raises(TypeError, match="dot_general"):
        empirical_ntk_fn(dense)(normal(0, 5, 4), X)
