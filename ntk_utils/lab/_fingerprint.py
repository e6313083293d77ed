"""All on which a measurement depends, as a short text.

Too much counts rather than too little: a changed comment may cost a measurement, but no stale
number is read. What lives in a file counts by the bytes of all source files around it, what lives
in a notebook by value, what is installed by its version.
"""

import functools
import hashlib
import io
import math
import os
import pickle
import platform
import site
import sys
import sysconfig
import tempfile
import time
import types
from collections.abc import Callable
from importlib import machinery, metadata
from pathlib import Path

import cloudpickle
import jax
import numpy as np
import psutil
from cloudpickle.cloudpickle import _get_or_create_tracker_id

_INSTALLED = [*site.getsitepackages(), site.getusersitepackages()]
_INSTALLED = {
    Path(p).resolve() for p in (*_INSTALLED, *map(sysconfig.get_path, ("stdlib", "platlib")))
}
_SHARED = {Path.home(), Path(Path.home().anchor), Path(tempfile.gettempdir()).resolve()}
_SUFFIXES = (*machinery.SOURCE_SUFFIXES, *machinery.EXTENSION_SUFFIXES)


def fingerprint(function: Callable) -> str:
    """Return a hash of everything that the results of `function` depend on.

    It does not see what the function reads from files, clocks and the environment, nor what was set
    at run time inside of classes and modules that come from files.

    Raises:
      TypeError: it refers to something that two runs could not compare.
    """
    began = _began()
    edited = _edited(began)
    for module in edited:
        cloudpickle.register_pickle_by_value(module)
    try:
        state = [function, _patches(), *map(_names, edited)]
        by_value = _by_value(state)
    except Exception as error:  # whatever the objects to which it refers raise
        raise TypeError(
            "measure: cannot tell between two runs whether all to which it refers is still the "
            f"same ({error}); put what it depends on into the grid, restart Python if a source "
            "file was edited, or drop the cache"
        ) from error
    finally:
        for module in edited:
            cloudpickle.unregister_pickle_by_value(module)
    machine = sys.version, platform.machine(), jax.default_backend()
    settings = [(k, str(v)) for k, v in sorted(jax.config.values.items()) if "cache" not in k]
    installed_since = any(os.stat(p).st_mtime > began for p in _INSTALLED if p.exists())
    versions = began if installed_since else _versions()  # which version is loaded?
    rest = repr((machine, settings, versions, _own_sources())).encode()
    return hashlib.blake2b(by_value + rest, digest_size=16).hexdigest()


@functools.cache  # within a process only: parsing them all takes longest
def _versions() -> list[tuple[str, str]]:
    return sorted((d.name, d.version) for d in metadata.distributions())


# --- what lives in files --------------------------------------------------------------------------


@functools.cache
def _is_installed(folder: Path) -> bool:
    return not _INSTALLED.isdisjoint([folder.resolve(), *folder.resolve().parents])


def _own_modules() -> list[types.ModuleType]:
    """The loaded modules that come from a file which no installation has put there."""
    files = [m for _, m in sorted(sys.modules.items()) if getattr(m, "__file__", None)]
    return [m for m in files if not _is_installed(Path(m.__file__).parent)]


def _own_sources() -> tuple[list[str], list[tuple[str, bytes]]]:
    """Where an import looks, and what it could find there, whether it is imported yet or not."""
    path = [Path(p).resolve() for p in sys.path]
    found = {Path(m.__file__).resolve() for m in _own_modules()}
    visited = set()
    for root in {*path, *(file.parent for file in found)}:
        for here, below, files in os.walk(root, followlinks=True):
            folder = Path(here).resolve()
            if folder in visited or _is_installed(folder):
                below.clear()
                continue
            visited.add(folder)
            # only identifiers can be imported; at home or in /tmp, not all folders are one project
            below[:] = [
                name
                for name in filter(str.isidentifier, below)
                if folder not in _SHARED or os.path.exists(folder / name / "__init__.py")
            ]
            found |= {folder / name for name in files if name.endswith(_SUFFIXES)}
    readable = [file for file in sorted(found) if os.access(file, os.R_OK)]  # no editor's locks
    return list(map(str, path)), [(str(file), file.read_bytes()) for file in readable]


def _began() -> float:
    began = psutil.Process().create_time()
    if hasattr(time, "CLOCK_BOOTTIME"):  # Linux: psutil counts 10 ms from a whole second
        began += time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - psutil.boot_time() + 0.01
    return began


def _edited(began: float) -> list[types.ModuleType]:
    """The modules whose files were edited in the lifetime of this process: which text is loaded?"""
    modules = [m for m in _own_modules() if m.__name__ != "__main__" and m.__spec__ is not None]
    return [m for m in modules if _changed(m.__file__) > began]


def _changed(file: str) -> float:
    try:
        status = os.stat(file)
    except OSError:  # it is gone, or was never there: in an archive
        return math.inf
    return max(status.st_mtime, status.st_ctime)


def _names(module: types.ModuleType) -> dict:
    return {name: value for name, value in vars(module).items() if name != "__builtins__"}


def _patches() -> list[tuple[str, str, Callable]]:
    """Functions of the notebook that stand in another module."""
    main = vars(sys.modules["__main__"])
    return [
        (name, key, types.FunctionType(f.__code__, main, key, f.__defaults__, f.__closure__))
        for name, module in sorted(sys.modules.items())
        if isinstance(module, types.ModuleType) and vars(module) is not main
        for key, f in sorted(vars(module).items())
        if isinstance(f, types.FunctionType) and f.__globals__ is main
    ]


# --- what lives in a notebook ---------------------------------------------------------------------


def _by_value(value) -> bytes:
    stream = io.BytesIO()
    _Pickler(stream, protocol=4).dump(value)
    return stream.getvalue()


class _Pickler(pickle._Pickler):  # that in Python: the one in C writes sets without asking
    """A pickle that nobody loads, the same for the same cells in another process."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self._cloud = cloudpickle.Pickler(io.BytesIO())

    def reducer_override(self, value):
        """Return how to pickle what pickle would take by its name or in a random order."""
        match value:
            case set() | frozenset():
                return _parts(type(value), *sorted(map(_by_value, value)))
            case types.CodeType():  # without its file and its lines
                return _parts(*(getattr(value, f"co_{name}") for name in _CODE))
            case jax.Array() if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
                return _parts(str(value.dtype), np.asarray(jax.random.key_data(value)))
            case types.FunctionType():
                return self._cloud.reducer_override(value)
            case type():
                how = self._cloud.reducer_override(value)
                if how is NotImplemented or len(how) == 2:  # known by its name, or built in
                    return how
                for name in ("__firstlineno__", "__static_attributes__"):  # from Python 3.13 on
                    how[2][0].pop(name, None)
                tracker = _get_or_create_tracker_id(value)  # a name drawn at random
                return how[0], tuple(a for a in how[1] if a is not tracker), *how[2:]
            case _ if "__wrapped__" in getattr(value, "__dict__", ()):  # jitted, cached, …
                state = {k: v for k, v in vars(value).items() if k != "_jit_info"}
                return _parts(type(value).__name__, *_name_or(state, value))
        return NotImplemented

    def memoize(self, value):
        """Two equal ones may be one object or two: that must make no difference."""
        if not isinstance(value, str | bytes | tuple):
            super().memoize(value)


_CODE = ("code", "consts", "names", "varnames", "freevars", "cellvars", "flags", "qualname")
_CODE += ("argcount", "posonlyargcount", "kwonlyargcount", "exceptiontable")
_Pickler.dispatch_table = cloudpickle.Pickler.dispatch_table


def _parts(*parts):
    return tuple, (parts,)


def _name_or(state, value):
    """The module and name of an object that an import would find there, or else its state."""
    module = sys.modules.get(value.__module__)
    changes = {"__main__", *cloudpickle.list_registry_pickle_by_value()}
    if value.__module__ not in changes and getattr(module, value.__qualname__, None) is value:
        return value.__module__, value.__qualname__
    return (state,)
