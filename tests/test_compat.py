"""Importing: what it loads, what it leaves alone, and that neural-tangents works afterwards."""

import importlib
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from ntk_utils import Network, apply, as_stax, compat, empirical_ntk, gaussian, init_params

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
