"""Make neural-tangents 0.6.5 whole on current JAX, and keep TensorFlow out.

``from ntk_utils.compat import neural_tangents as nt`` is the one way in; everything else here is
private.

The last release of neural-tangents (December 2023) looks for names that JAX has moved or dropped
since. They are lent to it *while it is being imported* and taken back afterwards: a name that JAX
still has is never touched, and other libraries see the JAX that is installed. The package also
imports TensorFlow, for `neural_tangents.experimental` alone; an empty module stands in.

Where it calls what is gone, functions of neural-tangents itself are replaced. AUTO and
STRUCTURED_DERIVATIVES walked through JAX's internals; they go through public JAX here:
`jax.linearize` and `jax.make_jaxpr` give the equations of a derivative, `jax.linear_transpose` the
transpose of one of them. What works, on the versions in `TESTED_JAX`: infinite-width kernels,
`empirical_ntk_fn` by all implementations, `monte_carlo_kernel_fn`, `linearize`, and of `predict`
`max_learning_rate` and `gradient_descent_mse`, that under `jit`, `vmap` and `grad` too.

What STRUCTURED_DERIVATIVES cannot do, here as upstream: `jax.checkpoint` with several outputs
inside of a network; primitives with several outputs, but `split`, on the way of the derivative; a
convolution whose kernel comes first. It raises there.
"""

import contextlib
import importlib
import importlib.util
import itertools
import sys
import threading
import types
import warnings
from importlib import machinery

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

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


def _load() -> types.ModuleType:
    _warn_if_untested(jax.__version__)
    # the one stand-in that stays: asking for it later must not import TensorFlow either
    name = "neural_tangents.experimental"
    sys.modules[name] = importlib.util.module_from_spec(machinery.ModuleSpec(name, None))
    with _names_put_back():
        neural_tangents = importlib.import_module("neural_tangents")

    _repair_empirical(importlib.import_module("neural_tangents._src.empirical"))
    _repair_predict(importlib.import_module("neural_tangents._src.predict"))
    return neural_tangents


def __getattr__(name: str) -> types.ModuleType:
    if name == "neural_tangents":
        with _ONE_AT_A_TIME:  # two threads would lend and take back JAX's names across each other
            if name not in globals():
                globals()[name] = _load()
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# --- neural_tangents.empirical: the equations of a derivative, one after the other ---------------
#
# Named after what they replace. STRUCTURED_DERIVATIVES goes back through a linear jaxpr and asks of
# each equation its transpose, or its derivative in one input; it reads one output an equation.


def _repair_empirical(empirical: types.ModuleType) -> None:
    undefined, zero = empirical.UndefinedPrimal, empirical.Zero

    def open_aval(value):
        """Of an input that is a variable, or known by its shape alone; else None."""
        if isinstance(value, undefined):
            return value.aval
        return value if isinstance(value, jax.core.ShapedArray) else None

    def _get_primals_out_and_pullback(fn, mode, _j_rules, _s_rules, _fwd, *primals_in):
        # ad.linearize returns other things, in another order, since JAX 0.7
        out, closed, in_tree = _linearized(fn, primals_in)

        def pullback(*cotangents):
            found = empirical._backward_pass(
                closed.jaxpr,
                mode=mode,
                consts=[jnp.asarray(c) for c in closed.consts],
                primals_in=[undefined(v.aval) for v in closed.jaxpr.invars],
                cotangents_in=tuple(jax.tree.leaves(cotangents)),
                _j_rules=_j_rules,
                _s_rules=_s_rules,
                _fwd=_fwd,
            )
            return jax.tree.unflatten(in_tree, found)

        return out, pullback

    def _eqn_jvp_fn(eqn, idx, tangents, *invals):
        # ad.primitive_jvps is not public; a linear equation is its own derivative
        if eqn is None:
            return tangents
        values = [
            value if aval is None else jnp.zeros(aval.shape, aval.dtype)
            for value, aval in zip(invals, map(open_aval, invals), strict=True)
        ]
        values[idx] = tangents
        return _outputs(eqn, values)[0]

    def _eqn_vjp_fn(eqn, cts_in, *invals):
        # ad.reducing_transposes and Primitive.map_primitive are gone since JAX 0.5 and 0.7
        if eqn is None:
            return (cts_in,)
        if isinstance(cts_in, zero):
            return [zero(v.aval) for v in eqn.invars]
        shapes = {
            i: jax.ShapeDtypeStruct(aval.shape, aval.dtype)
            for i, aval in enumerate(map(open_aval, invals))
            if aval is not None
        }

        def linear(values):
            return _outputs(eqn, [values.get(i, value) for i, value in enumerate(invals)])[0]

        if eqn.primitive is jax.lax.reshape_p:
            # neural-tangents gives the cotangent of a reshape the shape of its *input*
            cts_in = jnp.reshape(cts_in, jax.eval_shape(linear, shapes).shape)
        (cotangents,) = jax.linear_transpose(linear, shapes)(cts_in)
        return [cotangents.get(i) for i in range(len(invals))]

    def _read_primal(env, v):
        # the original asks for core.DShapedArray
        if isinstance(v, Literal):
            return jnp.asarray(v.val, v.aval.dtype)
        return env.get(v, undefined(v.aval))

    def _get_flops(f, optimize, *args, **kwargs):
        # cost_analysis is a dict since JAX 0.4.36, a list of one before
        lowered = jax.jit(f).lower(*args, **kwargs)
        return (lowered.compile() if optimize else lowered).cost_analysis()["flops"]

    def _get_fx_axis_and_dtype(fx, fx_axis, params):
        # jnp.dtype of an array is deprecated
        leaves = jax.tree.leaves(params)
        axis = jax.tree.map(lambda _: None, fx) if fx_axis is None else fx_axis
        return axis, (jnp.result_type(*leaves) if leaves else None)

    basis_of = empirical._std_basis

    def _std_basis(shapes):
        # of NTK_VECTOR_PRODUCTS: jnp.size of a ShapeDtypeStruct is about to be refused
        return basis_of(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes))

    for function in (
        _get_primals_out_and_pullback,
        _eqn_jvp_fn,
        _eqn_vjp_fn,
        _read_primal,
        _get_flops,
        _get_fx_axis_and_dtype,
        _std_basis,
    ):
        setattr(empirical, function.__name__, function)
    # what the backward pass asks of jax.interpreters.ad
    empirical.ad = types.SimpleNamespace(
        source_info_util=types.SimpleNamespace(
            transform_name_stack=lambda _: contextlib.nullcontext()
        ),
        config=types.SimpleNamespace(jax_enable_checks=False),
        add_tangents=lambda a, b: a + b,
        is_undefined_primal=lambda value: isinstance(value, undefined),
    )
    empirical.print = lambda *_: None  # AUTO prints what each implementation costs


def _linearized(fn, primals):
    """The outputs of fn, the jaxpr of its derivative at the primals, and the tree of its inputs."""
    flat, in_tree = jax.tree.flatten(primals)
    shapes = [jax.ShapeDtypeStruct(jnp.shape(p), jnp.result_type(p)) for p in flat]
    with jax.disable_jit():  # calls and loops are traced through
        out, derivative = jax.linearize(fn, *primals)
        closed = jax.make_jaxpr(
            lambda *tangents: jax.tree.leaves(derivative(*jax.tree.unflatten(in_tree, tangents)))
        )(*shapes)
        if any(eqn.primitive.name == "split" for eqn in closed.jaxpr.eqns):
            closed = jax.make_jaxpr(_without_split(closed))(*shapes)
    return jax.tree.map(jnp.asarray, out), closed, in_tree  # fn may return a Python number


def _without_split(closed):
    """The function of a jaxpr, with each `split` written as slices, which have one output."""

    def run(*args):
        known = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
        known.update(zip(closed.jaxpr.invars, args, strict=True))

        def read(v):
            return v.val if isinstance(v, Literal) else known[v]

        for eqn in closed.jaxpr.eqns:
            values = [read(v) for v in eqn.invars]
            if eqn.primitive.name == "split":
                ends = itertools.accumulate(map(int, eqn.params["sizes"]), initial=0)
                axis = eqn.params["axis"]
                found = [
                    jax.lax.slice_in_dim(values[0], lo, hi, axis=axis)
                    for lo, hi in itertools.pairwise(ends)
                ]
            else:
                found = _outputs(eqn, values)
            known.update(zip(eqn.outvars, found, strict=True))
        return [read(v) for v in closed.jaxpr.outvars]

    return run


def _outputs(eqn, values) -> list:
    """What an equation of a jaxpr gives of these inputs."""
    params = eqn.primitive.get_bind_params(eqn.params)
    functions, params = params if isinstance(params, tuple) else ((), params)
    found = eqn.primitive.bind(*functions, *values, **params)
    return list(found) if eqn.primitive.multiple_results else [found]


# --- neural_tangents.predict ----------------------------------------------------------------------


def _repair_predict(predict: types.ModuleType) -> None:
    # max_learning_rate calls SciPy's eigvalsh with `eigvals=`, which SciPy dropped: take the branch
    # that neural-tangents itself takes off the CPU, jnp.linalg.eigvalsh
    predict._is_on_cpu = lambda _: False
    # a kernel is decomposed under jax.core.eval_context, so that what is kept is no tracer; today
    # that context refuses a kernel that is one, under jit, vmap and grad: enter it for numbers only
    predict.jax = types.SimpleNamespace(
        core=types.SimpleNamespace(eval_context=contextlib.nullcontext),
        default_backend=jax.default_backend,
    )

    def outside_of_a_trace(decompose):
        def run(kernel, *args, **kwargs):
            is_known = not isinstance(kernel, jax.core.Tracer)
            with jax.core.eval_context() if is_known else contextlib.nullcontext():
                return decompose(kernel, *args, **kwargs)

        return run

    for name in ("_get_cho_solve", "_get_fns_in_eigenbasis"):
        setattr(predict, name, outside_of_a_trace(getattr(predict, name)))
