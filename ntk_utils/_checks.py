"""The door: what public functions accept, and the errors that say what was expected and what came.

A public function names a check for each argument in the decorator `checked`; a check returns the
argument in the form in which the function wants it, or raises. Inside the functions nothing is
checked again.
"""

import contextlib
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg


def checked(**checks: Callable):
    """Pass each named argument through its check, `check(name, value)`, on its way in.

    The checks run outside of any jit, and outside of the run-time type checks of the tests.
    """

    def decorate(function):
        signature = inspect.signature(function)

        @functools.wraps(function)
        def at_the_door(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            for name, check in checks.items():
                bound.arguments[name] = check(name, bound.arguments[name])
            if "params" in checks and "x" in checks:
                fits_width("x", bound.arguments["x"], bound.arguments["params"][0].shape[0])
            if "x" in checks and "y" in checks:
                x, y = bound.arguments["x"], bound.arguments["y"]
                if len(y) != len(x):
                    raise ValueError(f"y: expected {len(x)} labels, one a sample, got {len(y)}")
            with _off_the_mesh(bound.arguments.values()):
                return function(**bound.arguments)

        return at_the_door

    return decorate


def _off_the_mesh(arguments):
    """Leave the mesh of `jax.set_mesh`: the arrays lie where the door has put them."""
    leaves = jax.tree.leaves(list(arguments))
    if jax.sharding.get_abstract_mesh().empty or any(
        isinstance(a, jax.core.Tracer) for a in leaves
    ):
        return contextlib.nullcontext()
    return jax.set_mesh(jax.sharding.Mesh(np.empty((), dtype=object), ()))


def fits_width(name: str, x, d: int) -> None:
    """Raise unless the samples have d entries each."""
    if x.shape[1] != d:
        raise ValueError(
            f"{name}: expected {d} columns, the input width of the network, got shape {x.shape}"
        )


def is_hidden_layer(k: int, depth: int) -> None:
    """Raise unless k is the number of a hidden layer, 1 <= k <= L-1."""
    if k >= depth:
        raise ValueError(f"k: expected a hidden layer, an integer from 1 to {depth - 1}, got {k}")


def _real_array(name: str, value, ndim: int, *, placed: bool = False):
    """Return `value` as a finite float64 array of rank `ndim` with no empty axis.

    From an array, a list of lists, or what has `__array__`, as data frames and tensors do. An array
    of NumPy; or one of JAX under jit, vmap and grad, and, if `placed`, on a mesh.
    """
    array = _array(name, value, placed)
    if array.dtype != bool and not any(
        jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer)
    ):
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
    if not jax.config.jax_enable_x64:
        raise ValueError(f"{name}: expected JAX in 64 bits, got jax_enable_x64 = False")
    array = array.astype(np.float64, copy=False)
    if array.ndim != ndim:
        raise ValueError(f"{name}: expected an array of rank {ndim}, got shape {array.shape}")
    if 0 in array.shape:
        raise ValueError(
            f"{name}: expected at least one row and one column, got shape {array.shape}"
        )
    # under jit, vmap or grad there are no values to look at
    if not isinstance(array, jax.core.Tracer):
        is_finite = array.__array_namespace__().isfinite(array)
        if not is_finite.all():
            raise ValueError(
                f"{name}: expected finite entries, got {int((~is_finite).sum())} nan or inf"
            )
    return array


def _array(name: str, value, placed: bool):
    """The value as an array of any kind of numbers, gathered from its devices unless `placed`."""
    if isinstance(value, jax.core.Tracer) or (placed and is_placed(value)):
        return value
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        raise ValueError(
            f"{name}: expected an array whose entries this process has, got one that lies on "
            "several processes: apply, feature_matrices, backward_matrices, empirical_ntk and "
            "layer_ntks take it, placed by a NamedSharding"
        )
    if isinstance(value, np.ma.MaskedArray) and value.mask.any():
        raise ValueError(
            f"{name}: expected an array without masked entries, got {value.mask.sum()}"
        )
    if not (hasattr(value, "__array__") or isinstance(value, list | tuple | numbers.Number)):
        raise TypeError(f"{name}: expected a NumPy or JAX array, got {type(value).__name__}")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{name}: expected a rectangular array, got rows of different lengths"
        ) from error
    except Exception as error:  # its own __array__ may raise any
        raise TypeError(
            f"{name}: expected a NumPy or JAX array, got {type(value).__name__}: {error}"
        ) from error
    # pandas' columns of several kinds of numbers; its missing value is none
    if array.dtype == object and all(isinstance(v, numbers.Real | np.bool_) for v in array.flat):
        with contextlib.suppress(OverflowError):  # an integer beyond the largest float
            return array.astype(np.float64)
    return array


def is_placed(array) -> bool:
    """Whether an array is placed over several devices of a mesh."""
    return (
        isinstance(array, jax.Array)
        and not isinstance(array, jax.core.Tracer)
        and isinstance(array.sharding, jax.sharding.NamedSharding)
        and len(array.sharding.device_set) > 1
    )


def concrete(array):
    """Return the values as a NumPy array; under jit and vmap, where there are none, the array.

    NumPy has nothing to compile, which takes JAX longer than the work itself on small arrays.
    """
    return array if isinstance(array, jax.core.Tracer) else np.asarray(array)


def on_device(array) -> jax.Array:
    """Make an array one of JAX; jnp.asarray would compile a program for each new shape."""
    return array if isinstance(array, jax.Array) else jax.device_put(array)


def inputs(name: str, value, *, placed: bool = False) -> jax.Array:
    """Samples, shape (N, d); gathered on one device."""
    array = _real_array(name, value, 2, placed=placed)
    is_ready = (
        isinstance(value, jax.Array)
        and not isinstance(value, jax.core.Tracer)
        and value.dtype == np.float64
        and isinstance(value.sharding, jax.sharding.SingleDeviceSharding)
    )
    return value if is_ready else on_device(array)  # what lies on an accelerator stays there


def placed_inputs(name: str, value) -> jax.Array:
    """Samples, shape (N, d); where they are placed over a mesh of devices, they stay there."""
    return inputs(name, value, placed=True)


def samples(name: str, value) -> jax.Array:
    """At least two samples, shape (N, d): for what compares samples with one another."""
    x = inputs(name, value)
    if len(x) < 2:
        raise ValueError(f"{name}: expected at least two samples, got shape {x.shape}")
    return x


def labels(name: str, value) -> np.ndarray:
    """Labels, shape (N,)."""
    return np.asarray(_real_array(name, value, 1))


def times(name: str, value) -> np.ndarray:
    """At least two times, increasing from 0."""
    t = labels(name, value)
    if len(t) < 2 or t[0] != 0 or not (np.diff(t) > 0).all():
        raise ValueError(f"{name}: expected at least two, increasing from 0, got {t}")
    return t


def weights(name: str, value) -> tuple[jax.Array, ...]:
    """Weight matrices of shapes (n_0, n_1), (n_1, n_2), …, (n_{L-1}, 1)."""
    if not isinstance(value, tuple | list) or not value:
        raise TypeError(
            f"{name}: expected a non-empty tuple of weight matrices, got {type(value).__name__}"
        )
    for i, w in enumerate(value):
        if isinstance(w, tuple | list) and len(w) == 2 and getattr(w[0], "ndim", None) == 2:
            raise TypeError(
                f"{name}: expected weight matrices alone, of networks without biases, "
                f"got a pair (W, b) in {name}[{i}]"
            )
    params = tuple(inputs(f"{name}[{i}]", w) for i, w in enumerate(value))
    for i in range(len(params) - 1):
        if params[i].shape[1] != params[i + 1].shape[0]:
            raise ValueError(
                f"{name}: expected {name}[{i + 1}] to have as many rows as {name}[{i}] has "
                f"columns, got shapes {params[i].shape} and {params[i + 1].shape}"
            )
    if params[-1].shape[1] != 1:
        raise ValueError(
            f"{name}: expected a last matrix with 1 column, a scalar output, "
            f"got shape {params[-1].shape}"
        )
    return params


def double_matrix(name: str, value) -> np.ndarray:
    """A matrix in double precision, as LAPACK takes it."""
    array = _array(name, value, placed=False)  # of a tensor the dtype may be none of NumPy's
    if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype != np.float64:
        raise TypeError(
            f"{name}: expected float64, got {array.dtype}; in lower precision the smallest "
            "eigenvalue is noise (importing ntk_utils switches JAX to 64 bits: import it first)"
        )
    return np.asarray(_real_array(name, array, 2))


def kernel(name: str, value) -> np.ndarray:
    """A symmetric matrix in double precision, shape (N, N), positive semidefinite or not."""
    k = double_matrix(name, value)
    if k.shape[0] != k.shape[1]:
        raise ValueError(f"{name}: expected a square matrix, got shape {k.shape}")
    if not scipy.linalg.issymmetric(k):  # exactly, which takes a tenth of the time of what follows
        asymmetry = np.abs(k - k.T).max()
        if asymmetry > 1e-8 * np.abs(k).max():
            raise ValueError(
                f"{name}: expected a symmetric matrix, got max |k - k.T| = {asymmetry:.3g}"
            )
    return k


def positive_integer(name: str, value) -> int:
    """An integer, at least 1."""
    return _integer(name, value, at_least=1)


def order(name: str, value) -> int:
    """An integer, at least 0."""
    return _integer(name, value, at_least=0)


def even_order(name: str, value) -> int:
    """An even integer, at least 2."""
    r = _integer(name, value, at_least=2)
    if r % 2:
        raise ValueError(f"{name}: expected an even integer, got {r}")
    return r


def _integer(name: str, value, *, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if value < at_least:
        raise ValueError(f"{name}: expected an integer >= {at_least}, got {value}")
    return int(value)


def subsets(name: str, value, n: int) -> np.ndarray:
    """Rows of n booleans, in each of which at least one is True: what is kept of n things."""
    kept = np.asarray(value)
    if kept.dtype != bool or kept.ndim != 2 or kept.shape[1] != n or not kept.any(axis=1).all():
        raise ValueError(
            f"{name}: expected rows of {n} booleans, not all False, got {kept.dtype} of shape "
            f"{kept.shape}"
        )
    return kept


def real_number(name: str, value, condition: str = "") -> float:
    """A finite real number; of which one more thing may be expected, by its caller."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a real number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number{condition}, got {value}")
    return float(value)


def positive_number(name: str, value) -> float:
    """A finite real number greater than 0."""
    if real_number(name, value, " > 0") <= 0:
        raise ValueError(f"{name}: expected a finite number > 0, got {value}")
    return float(value)


def non_negative_number(name: str, value) -> float:
    """A finite real number, 0 or greater."""
    if real_number(name, value, " >= 0") < 0:
        raise ValueError(f"{name}: expected a finite number >= 0, got {value}")
    return float(value)


def iterable(name: str, value) -> list:
    """The items of something that can be gone through, once."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: expected a sequence, got {value!r}")
    return list(value)


def random_key(name: str, value) -> jax.Array:
    """One random key of JAX, `jax.random.key(0)` or the older `jax.random.PRNGKey(0)`."""
    is_array = isinstance(value, jax.Array)
    if is_array and jnp.issubdtype(value.dtype, jax.dtypes.prng_key) and value.shape == ():
        return value
    if is_array and value.dtype == np.uint32 and value.ndim == 1:
        return jax.random.wrap_key_data(value)
    came = f"{value.dtype} of shape {value.shape}" if is_array else repr(value)
    raise TypeError(f"{name}: expected one random key, such as jax.random.key(0), got {came}")


def none_or(check: Callable) -> Callable:
    """Make the check that lets None pass."""
    return lambda name, value: None if value is None else check(name, value)


def instance_of(kind: type) -> Callable:
    """Make the check that a value is a `kind`."""

    def check(name: str, value):
        if not isinstance(value, kind):
            raise TypeError(f"{name}: expected {kind.__name__}, got {type(value).__name__}")
        return value

    return check


labelled = {"params": weights, "x": inputs, "y": labels, "tolerance": positive_number}
"""What every function checks that brings a network's outputs, or its kernel, to given labels."""
