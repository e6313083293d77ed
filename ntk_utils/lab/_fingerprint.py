"""What a function would compute, as a short text: a hash of its code and of all the code refers to.

Functions with the same fingerprint return the same for the same arguments, unless they read files,
clocks or the environment, which do not count. What counts is the code as it is loaded, not the file
on disk: its instructions and constants, default and captured values, and, again and again, the
globals it names. Installed packages count by name and version, this one by its source files.
Comments, docstrings and line numbers do not count, nor does where the code stands.
"""

import contextlib
import dis
import functools
import importlib
import pickle
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path

import jax
import jax.numpy as jnp
import joblib
import numpy as np

_PLAIN = (type(None), type(...), bool, int, float, complex, str, bytes, np.ndarray, np.generic)
_IMMUTABLE = (tuple, frozenset, types.CodeType)  # never contain themselves, shared at whim
_HERE = Path(__file__).parents[1]  # of the whole package
_INSTALLED = (str(_HERE), *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), "<frozen ")
_NO_BEHAVIOUR = {"__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__"}
_NO_BEHAVIOUR |= {"__static_attributes__", "__annotations__", "__dataclass_fields__"}


def fingerprint(function: Callable) -> str:
    """Return a hash of everything that the results of `function` depend on.

    Raises:
      TypeError: it refers to something that two runs could not compare.
    """
    return joblib.hash([sys.version_info[:2], jax.__version__, _plain(function, {})])


def _plain(value, seen: dict):
    """The value as nested lists of plain data; an object that was met before as its number."""
    if isinstance(value, _PLAIN):
        return value
    if id(value) in seen:
        return ["met before", seen[id(value)][0]]
    if not isinstance(value, _IMMUTABLE):
        seen[id(value)] = len(seen), value  # the object too: an id is its own only while it lives
    return [type(value).__qualname__, *(_plain(part, seen) for part in _parts(value))]


def _parts(value) -> Iterator:
    """What an object that is not plain consists of."""
    match value:
        case jax.Array():
            is_key = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
            yield np.asarray(jax.random.key_data(value) if is_key else value)
        case Mapping():
            yield from value.items()
        case Set():
            yield from sorted(value, key=joblib.hash)
        case tuple() | list():
            yield from value
        case types.ModuleType() | type() | types.FunctionType() if _is_installed(value):
            yield _name(value)
        case types.FunctionType():
            yield from (value.__defaults__, value.__kwdefaults__)
            yield from (cell.cell_contents for cell in value.__closure__ or ())
            if value.__code__.co_filename.startswith(_INSTALLED):  # made by a decorator
                yield value.__code__.co_qualname
            else:
                yield from _instructions(value.__code__, value.__globals__)
        case types.ModuleType():
            yield from (v for v in vars(value).values() if _is_defined_in(v, value))
        case type():
            yield value.__bases__
            yield from ((k, v) for k, v in vars(value).items() if k not in _NO_BEHAVIOUR)
        case types.MethodType():
            yield from (value.__func__, value.__self__)
        case functools.partial():
            yield from (value.func, value.args, value.keywords)
        case property():
            yield from (value.fget, value.fset)
        case _ if hasattr(value, "__dict__") and not _is_of_package(type(value).__module__):
            yield from (type(value), vars(value))
        case _ if hasattr(value, "__wrapped__"):  # jitted, cached, a static method
            yield value.__wrapped__
        case _:
            try:
                yield joblib.hash(value)
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                raise TypeError(
                    f"measure: cannot tell between two runs whether {value!r}, to which it refers, "
                    "is still the same; put what it depends on into the grid, or drop the cache"
                ) from error


def _instructions(code: types.CodeType, global_values: dict) -> Iterator:
    """The instructions, those of inner functions as well, and the globals that they load."""
    instructions = list(dis.get_instructions(code))
    yield code.co_exceptiontable
    for i, instruction in enumerate(instructions):
        yield instruction.opname
        if isinstance(instruction.argval, types.CodeType):
            yield from _instructions(instruction.argval, global_values)
        else:
            yield instruction.argval
        if instruction.opname == "IMPORT_NAME":  # inside the function, which imports it in any case
            with contextlib.suppress(ImportError):
                yield importlib.import_module(instruction.argval)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            value = global_values.get(instruction.argval)
            for following in instructions[i + 1 :]:  # module.submodule.function
                is_attribute = following.opname in ("LOAD_ATTR", "LOAD_METHOD")
                if not (is_attribute and isinstance(value, types.ModuleType)):
                    break
                value = getattr(value, following.argval, None)
            yield value


def _is_installed(value) -> bool:
    """Whether a module, or a class or function under its own name, comes from a package."""
    name = _name(value)
    return name[0] in sys.modules and _is_of_package(name[0]) and _named(name) is value


def _is_of_package(module: str) -> bool:
    """Whether a module is not the user's; one that is not loaded is part of compiled code."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return module != "__main__" and (file is None or file.startswith(_INSTALLED))


def _named(name):
    path = filter(None, name[1].split("."))
    return functools.reduce(lambda v, n: getattr(v, n, None), path, sys.modules[name[0]])


def _is_defined_in(value, module) -> bool:
    is_code = isinstance(value, type | types.FunctionType) or hasattr(value, "__wrapped__")
    return is_code and value.__module__ == module.__name__


def _name(value) -> tuple[str, str, str]:
    """The module of a function or class, its name in there, and the version of its package."""
    module = value.__name__ if isinstance(value, types.ModuleType) else str(value.__module__)
    package = module.partition(".")[0]
    version = getattr(sys.modules.get(package), "__version__", "")
    return (
        module,
        getattr(value, "__qualname__", ""),
        _digest_of_this_package() if package == _HERE.name else version,
    )


@functools.cache
def _digest_of_this_package() -> str:
    return joblib.hash([path.read_bytes() for path in sorted(_HERE.rglob("*.py"))])
