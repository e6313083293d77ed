"""Make neural-tangents 0.6.5 importable on current JAX, and keep TensorFlow out.

``from ntk_utils.compat import neural_tangents as nt`` is the one way in; everything else here is
private.

The last release of neural-tangents (December 2023) looks for names that JAX has moved or dropped
since. They are lent to it *while it is being imported* and taken back afterwards: a name that JAX
still has is never touched, and other libraries see the JAX that is installed. The package also
imports TensorFlow, for `neural_tangents.experimental` alone; an empty module stands in.

What works, tested on the versions in `TESTED_JAX`: infinite-width kernels, `empirical_ntk_fn` by
JACOBIAN_CONTRACTION and NTK_VECTOR_PRODUCTS, `monte_carlo_kernel_fn`, `linearize`,
`predict.gradient_descent_mse`, `predict.max_learning_rate`. The implementations AUTO and
STRUCTURED_DERIVATIVES walk through JAX internals that no longer exist; they raise
`NotImplementedError` and name the way out.
"""

import contextlib
import importlib
import importlib.util
import sys
import threading
import types
import warnings
from importlib import machinery

import jax

TESTED_JAX = ("0.10.2", "0.13")
"""Oldest tested version of JAX, and the first that is not tested any more."""

# where neural-tangents looks for a name -> where JAX has it today
_MOVED = {
    **{
        ("jax.core", name): "jax.extend.core"
        for name in ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
    },
    **{("jax.core", name): "jax._src.core" for name in ("AbstractValue", "ShapedArray", "Value")},
    ("jax.interpreters.ad", "UndefinedPrimal"): "jax._src.interpreters.ad",
    ("jax.interpreters.ad", "Zero"): "jax._src.interpreters.ad",
    ("jax.interpreters.ad", "add_jaxvals_p"): "jax._src.ad_util",
    ("jax.extend", "linear_util"): "jax._src",
    ("jax.extend", "source_info_util"): "jax._src",
}
# a primitive that JAX dropped: neural-tangents registers rules under it, which then never apply
_DROPPED = ("jax.interpreters.ad", "zeros_like_p")


_ONE_AT_A_TIME = threading.RLock()


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _warn_if_untested(version: str) -> None:
    oldest, too_new = TESTED_JAX
    if not _version(oldest) <= _version(version) < _version(too_new):
        warnings.warn(
            f"neural-tangents 0.6.5 is tested here on JAX >= {oldest}, < {too_new}; this is JAX "
            f"{version}. If its import fails, install the tested one from requirements.lock.",
            stacklevel=4,
        )


@contextlib.contextmanager
def _names_put_back():
    """Lend neural-tangents the names that this JAX lacks, for as long as the block runs."""
    with contextlib.ExitStack() as take_back, warnings.catch_warnings():
        # asking JAX for a name on its way out warns
        warnings.simplefilter("ignore", DeprecationWarning)

        def lend(place, name, value):
            module = importlib.import_module(place)
            if not hasattr(module, name):
                setattr(module, name, value)
                take_back.callback(delattr, module, name)

        for (place, name), home in _MOVED.items():
            lend(place, name, getattr(importlib.import_module(home), name, None))
        lend(*_DROPPED, object())
        if importlib.util.find_spec("jax.util") is None:
            sys.modules["jax.util"] = importlib.import_module("jax._src.util")
            take_back.callback(sys.modules.pop, "jax.util")
        yield


def _not_on_this_jax(implementation: str):
    def raise_error(**_):
        raise NotImplementedError(
            f"neural-tangents' implementation {implementation} needs JAX internals that are gone "
            "since JAX 0.6. Use JACOBIAN_CONTRACTION or NTK_VECTOR_PRODUCTS; for fully connected "
            "networks ntk_utils.empirical_ntk is faster than any of them."
        )

    return raise_error


def _load() -> types.ModuleType:
    _warn_if_untested(jax.__version__)
    # the one stand-in that stays: asking for it later must not import TensorFlow either
    name = "neural_tangents.experimental"
    sys.modules[name] = importlib.util.module_from_spec(machinery.ModuleSpec(name, None))
    with _names_put_back():
        neural_tangents = importlib.import_module("neural_tangents")

    empirical = importlib.import_module("neural_tangents._src.empirical")
    for name in ("AUTO", "STRUCTURED_DERIVATIVES"):
        empirical._implementation_to_ntk_fn[neural_tangents.NtkImplementation[name]] = (
            _not_on_this_jax(name)
        )

    # NTK_VECTOR_PRODUCTS asks jnp.size for the size of a ShapeDtypeStruct, which JAX is about to
    # refuse: give it an array
    basis_of = empirical._std_basis
    empirical._std_basis = lambda shapes: basis_of(
        jax.tree.map(lambda s: jax.numpy.zeros(s.shape, s.dtype), shapes)
    )
    # max_learning_rate calls SciPy's eigvalsh with `eigvals=`, which SciPy dropped: take the branch
    # that neural-tangents itself takes off the CPU, jnp.linalg.eigvalsh
    importlib.import_module("neural_tangents._src.predict")._is_on_cpu = lambda _: False
    return neural_tangents


def __getattr__(name: str) -> types.ModuleType:
    if name == "neural_tangents":
        with _ONE_AT_A_TIME:  # two threads would lend and take back JAX's names across each other
            if name not in globals():
                globals()[name] = _load()
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
