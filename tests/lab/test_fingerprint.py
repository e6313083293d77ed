"""What a measurement depends on: whatever changes its numbers changes its fingerprint."""

import builtins
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import ntk_utils
from ntk_utils.lab import _fingerprint
from ntk_utils.lab._fingerprint import fingerprint

# in the processes that these tests start
START = """
import functools, importlib, json, os, shutil, sys, warnings
from pathlib import Path
import ntk_utils as ntk
from ntk_utils.lab import _fingerprint
"""


def in_a_new_process(code, *args, hash_seed=0, folder=None):
    """What the code prints, as JSON."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(ntk_utils.__file__).parents[1]),
        "PYTHONHASHSEED": str(hash_seed),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    printed = subprocess.check_output(
        [sys.executable, "-W", "error", "-c", START + code, *map(str, args)],
        text=True,
        env=environment,
        cwd=folder,
    )
    return json.loads(printed)


# --- what lives in files --------------------------------------------------------------------------

M = "def measure(n, key):\n    "
TEN = "def f(n): return 2 * n\n"
# name: files, what is changed there, into what
FILES = {
    "parameters swapped": (
        {"u": "def diff(a, b): return a - b\n" + M + "return diff(n, 1)"},
        "diff(a, b)",
        "diff(b, a)",
    ),
    "import in the function, a constant": (
        {"u": M + "import cfg\n    return cfg.F * n", "cfg": "F = 2"},
        "F = 2",
        "F = 3",
    ),
    "from-import in the function, a constant": (
        {"u": M + "from cfg import F\n    return F * n", "cfg": "F = 2"},
        "F = 2",
        "F = 3",
    ),
    "relative import in the function": (
        {
            "pk/__init__": "",
            "pk/u": M + "from .sub import f\n    return f(n)",
            "pk/sub": "def f(n): return 2 * n",
        },
        "2 * n",
        "3 * n",
    ),
    "module passed to a helper": (
        {
            "u": "import cfg\ndef g(c, n): return c.F * n\n" + M + "return g(cfg, n)",
            "cfg": "F = 2",
        },
        "F = 2",
        "F = 3",
    ),
    "method of a NamedTuple": (
        {
            "u": "from typing import NamedTuple\nclass C(NamedTuple):\n    a: float = 1.\n"
            "    def f(self, n): return 2 * n\nc = C()\n" + M + "return c.f(n)"
        },
        "2 * n",
        "3 * n",
    ),
    "method of a list subclass": (
        {"u": "class C(list):\n    def f(self, n): return 2 * n\nc = C()\n" + M + "return c.f(n)"},
        "2 * n",
        "3 * n",
    ),
    "dict subclass": (
        {
            "u": "class C(dict):\n    def __missing__(self, n): return 2 * n\nc = C()\n"
            + M
            + "return c[n]"
        },
        "2 * n",
        "3 * n",
    ),
    "function in a SimpleNamespace": (
        {
            "u": "from types import SimpleNamespace\n"
            + TEN
            + "c = SimpleNamespace(f=f)\n"
            + M
            + "return c.f(n)"
        },
        "2 * n",
        "3 * n",
    ),
    "np.vectorize(f)": (
        {"u": "import numpy as np\n" + TEN + "g = np.vectorize(f)\n" + M + "return float(g(n))"},
        "2 * n",
        "3 * n",
    ),
    "object array of functions": (
        {
            "u": "import numpy as np\n"
            + TEN
            + "c = np.array([f, 0], dtype=object)\n"
            + M
            + "return c[0](n)"
        },
        "2 * n",
        "3 * n",
    ),
    "equinox Lambda": (
        {"u": "import equinox as eqx\n" + TEN + "c = eqx.nn.Lambda(f)\n" + M + "return c(n)"},
        "2 * n",
        "3 * n",
    ),
    "custom_jvp rule": (
        {
            "u": "import jax\n@jax.custom_jvp\ndef f(x): return x * x\n@f.defjvp\n"
            "def r(p, t): return f(*p), 2. * t[0]\n" + M + "return jax.grad(f)(float(n))"
        },
        "2. * t",
        "3. * t",
    ),
    # neighbours
    "namespace package, imported in the function": (
        {"u": M + "import ns.sub\n    return ns.sub.F * n", "ns/sub": "F = 2"},
        "F = 2",
        "F = 3",
    ),
    "a package, from . import s in the function": (
        {"pk/__init__": "", "pk/u": M + "from . import s\n    return s.F * n", "pk/s": "F = 2"},
        "F = 2",
        "F = 3",
    ),
    "behind a link, imported in the function": (
        {"u": M + "import linked.sub\n    return linked.sub.F * n", "../else/sub": "F = 2"},
        "F = 2",
        "F = 3",
    ),
    "default of a dataclass": (
        {
            "u": "import dataclasses\n@dataclasses.dataclass\nclass C:\n    a: float = 2.\n"
            + M
            + "return C().a * n"
        },
        "2.",
        "3.",
    ),
    "by a string that is evaluated": (
        {"u": "F = 2\n" + M + "return eval('F') * n"},
        "F = 2",
        "F = 3",
    ),
    "a file that Python would not find, by its path": (
        {
            "u": "import importlib.machinery as m, importlib.util as i, os, sys\n"
            "p = os.path.dirname(__file__) + '/cells-2.py'\n"
            "s = i.spec_from_loader('cells', m.SourceFileLoader('cells', p))\n"
            "cells = sys.modules['cells'] = i.module_from_spec(s)\ns.loader.exec_module(cells)\n"
            + M
            + "return cells.F * n",
            "cells-2": "F = 2",
        },
        "F = 2",
        "F = 3",
    ),
}

RUN_FILES = """
root, turns, cases = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
warnings.simplefilter("ignore", DeprecationWarning)

def write(src, files):
    for name, text in files.items():
        Path(src, name).parent.mkdir(parents=True, exist_ok=True)
        Path(src, name + ".py").write_text(text + "\\n")

def turn(folder, files):
    src, cache = folder / "src", folder / "cache"
    before = len(list(cache.glob("*.sqlite")))
    mine = {"u", "cfg", "pk", "ns", "linked", "cells"}
    for name in [name for name in sys.modules if name.split(".")[0] in mine]:
        del sys.modules[name]
    importlib.invalidate_caches()
    sys.path.insert(0, str(src))
    try:
        u = importlib.import_module("pk.u" if "pk/u" in files else "u")
        value = ntk.sweep(u.measure, {"n": [2]}, [0], cache=cache, progress=False)["value"][0]
        value = [float(value), float(u.measure(2, None))]
    finally:
        sys.path.pop(0)
    return [*value, len(list(cache.glob("*.sqlite"))) > before]

def both(i, files, old, new):
    folder, results = root / str(i), []
    for which in turns:  # s: as it stands, e: edit it now
        if which == "e":
            files = {k: v.replace(old, new) for k, v in files.items()}
            write(folder / "src", files)
        results.append(turn(folder, files))
    return results

print(json.dumps([both(i, *case) for i, case in enumerate(cases)]))
"""


def write(src, files):
    for name, text in files.items():
        path = Path(src, name + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


@pytest.fixture(scope="module")
def files_in_turn(tmp_path_factory):
    """For each case: [value, its truth, whether it was measured] of each turn, in 3 processes."""
    root = tmp_path_factory.mktemp("files")
    cases = json.dumps(list(FILES.values()))
    for i, (files, _, _) in enumerate(FILES.values()):
        write(root / str(i) / "src", files)
        (root / str(i) / "else").mkdir(exist_ok=True)
        (root / str(i) / "src/linked").symlink_to(root / str(i) / "else")
    first = in_a_new_process(RUN_FILES, root, "s", cases, hash_seed=1)
    again_then_edited = in_a_new_process(RUN_FILES, root, "se", cases, hash_seed=2)
    edited = in_a_new_process(RUN_FILES, root, "s", cases)
    turns = zip(first, again_then_edited, edited, strict=True)
    return dict(zip(FILES, ([*a, *b, *c] for a, b, c in turns), strict=True))


@pytest.mark.parametrize("case", FILES)
def test_an_edited_file_is_measured_anew_in_this_process_and_the_next(files_in_turn, case):
    (old, *_), _, (new, truth, measured), (newer, *_, measured_again) = files_in_turn[case]
    assert old != truth == new == newer
    assert measured
    assert measured_again


@pytest.mark.parametrize("case", FILES)
def test_what_no_one_has_edited_is_read_by_another_process(files_in_turn, case):
    (old, truth, measured), (again, _, measured_again), *_ = files_in_turn[case]
    assert measured
    assert not measured_again
    assert old == truth == again


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module, and load it if it is not: its measure returns F."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def written(factor):
        write(tmp_path, {"a_module_of_mine": f"F = {factor}\ndef measure(n, key): return F * n"})
        import a_module_of_mine

        return a_module_of_mine

    yield written
    sys.modules.pop("a_module_of_mine", None)


def test_a_module_edited_and_not_reloaded_counts_as_it_was_loaded(module, monkeypatch):
    at_first = fingerprint(module(2).measure)
    stale = module(33)
    assert stale.F == 2
    assert fingerprint(stale.measure) != at_first
    not_reloaded = fingerprint(stale.measure)
    reloaded = fingerprint(importlib.reload(stale).measure)
    assert stale.F == 33
    assert reloaded != not_reloaded
    # not even where everything else is equal: as if this process had the file from its start
    monkeypatch.setattr(_fingerprint, "_edited", lambda began: [])  # noqa: ARG005
    fresh = fingerprint(stale.measure)
    assert fresh not in {not_reloaded, reloaded}
    module(2)
    assert fingerprint(stale.measure) != fresh


def test_a_module_whose_file_is_gone_counts_as_it_was_loaded(module, tmp_path, monkeypatch):
    monkeypatch.setattr(_fingerprint, "_began", lambda: 1e18)  # as if nothing were edited since
    found = set()
    for factor in (2, 3):
        sys.modules.pop("a_module_of_mine", None)
        importlib.invalidate_caches()
        loaded = module(factor)
        (tmp_path / "a_module_of_mine.py").unlink()
        assert factor == loaded.F
        found.add(fingerprint(loaded.measure))
    assert len(found) == 2


def test_where_an_import_looks_first_counts(tmp_path, monkeypatch):
    write(tmp_path, {"a/cfg": "F = 2", "b/cfg": "F = 3"})
    found = set()
    for order in (("a", "b"), ("b", "a")):
        path = [str(tmp_path / name) for name in order]
        monkeypatch.setattr(sys, "path", [*path, *sys.path])
        found.add(fingerprint(len))
        monkeypatch.undo()
    assert len(found) == 2


def test_a_folder_whose_name_only_begins_like_an_installed_one_is_not_installed(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(_fingerprint, "_INSTALLED", {*_fingerprint._INSTALLED, tmp_path / "site"})
    monkeypatch.setattr(_fingerprint, "_began", lambda: 1e18)  # as if nothing were installed since
    _fingerprint._is_installed.cache_clear()
    for name, counts in (("site", False), ("site_mine", True)):
        (tmp_path / name).mkdir()
        monkeypatch.syspath_prepend(tmp_path / name)
        before = fingerprint(len)
        write(tmp_path / name, {"mymod": "def measure(n, key): return 2 * n"})
        assert (fingerprint(len) != before) is counts


def test_the_lock_that_an_editor_puts_beside_a_file_does_not_disturb(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    before = fingerprint(len)
    (tmp_path / ".#u.py").symlink_to("me@here.1234:5678")  # Emacs
    assert fingerprint(len) == before


def test_folders_that_link_in_a_circle_are_walked_once(tmp_path, monkeypatch):
    write(tmp_path, {"pk/__init__": "", "pk/u": "F = 1"})
    (tmp_path / "pk/circle").symlink_to(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = fingerprint(len)
    write(tmp_path, {"pk/u": "F = 2"})
    assert fingerprint(len) != before


# --- what is set and installed --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("jax_enable_x64", False),
        ("jax_default_prng_impl", "rbg"),
        ("jax_default_matmul_precision", "bfloat16"),
        ("jax_threefry_partitionable", False),
        ("jax_random_seed_offset", 1),
        ("jax_disable_jit", True),
        ("jax_default_device", jax.devices("cpu")[0]),
    ],
)
def test_a_setting_of_jax_that_changes_numbers_counts(setting, value):
    default, before = jax.config.values[setting], fingerprint(len)
    jax.config.update(setting, value)
    try:
        assert fingerprint(len) != before
    finally:
        jax.config.update(setting, default)
    assert fingerprint(len) == before


def test_a_setting_counts_where_it_holds_for_a_block_alone():
    before = fingerprint(len)
    with jax.default_matmul_precision("float32"):
        assert fingerprint(len) != before
    assert fingerprint(len) == before


def test_the_version_of_every_installed_package_counts(tmp_path, monkeypatch):
    info = tmp_path / "of_theirs-1.0.dist-info"
    info.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    found = set()
    for version in ("1.0", "1.1"):
        _fingerprint._versions.cache_clear()  # as in another process
        (info / "METADATA").write_text(f"Name: of-theirs\nVersion: {version}\n")
        found.add(fingerprint(len))
    _fingerprint._versions.cache_clear()
    assert len(found) == 2


def test_after_an_installation_this_process_shares_nothing_with_a_later_one(tmp_path, monkeypatch):
    monkeypatch.setattr(_fingerprint, "_INSTALLED", {*_fingerprint._INSTALLED, tmp_path})
    began = _fingerprint._began()
    os.utime(tmp_path, (began - 9, began - 9))
    before = fingerprint(len)
    (tmp_path / "of_theirs.py").touch()
    here = fingerprint(len)
    os.utime(tmp_path, (began - 9, began - 9))  # as a later process sees it
    assert here != before == fingerprint(len)


# --- what lives in a notebook ---------------------------------------------------------------------

# name: a cell, what is changed there, into what
CELLS = {
    "a constant": ("F = 2\n" + M + "return F * n", "F = 2", "F = 3"),
    "an operator": (M + "return n + 1", "n + 1", "n - 1"),
    "parameters swapped": (
        "def d(a, b): return a - b\n" + M + "return d(n, 1)",
        "(a, b)",
        "(b, a)",
    ),
    "a default": ("def measure(n, key, c=2): return c * n", "c=2", "c=3"),
    "a keyword's default": ("def measure(n, *, key, c=2): return c * n", "c=2", "c=3"),
    "only keywords": ("def f(n, c=1): return c\n" + M + "return f(n)", "(n, c", "(n, *, c"),
    "a captured value": (
        "def shifted(c): return lambda n, key: n + c\nmeasure = shifted(2)",
        "shifted(2)",
        "shifted(3)",
    ),
    "a method's name": (M + "import numpy as np\n    return np.sqrt(n)", "np.sqrt", "np.exp"),
    "a relative import's module": (M + "from math import sin as f\n    return f(n)", "sin", "cos"),
    "elements of a set": (
        "S = {'a', 'b', 'c', 'd', ('e', 1)}\n" + M + "return n in S or n in {'x', 'y', 'z'}",
        "'y'",
        "'w'",
    ),
    "an array": ("import numpy as np\nA = np.arange(3)\n" + M + "return A.sum()", "ge(3)", "ge(4)"),
    "a dtype": (
        "import numpy as np\nA = np.ones(3, 'f8')\n" + M + "return A.sum()",
        "f8",
        "f4",
    ),
    "lru_cache": (
        "@functools.lru_cache\ndef f(n): return 2 * n\n" + M + "return f(n)",
        "2 * n",
        "3 * n",
    ),
    "jit": ("import jax\n@jax.jit\ndef f(n): return 2 * n\n" + M + "return f(n)", "2 *", "3 *"),
    "what jit calls": (
        "import jax\ndef g(n): return 2 * n\nf = jax.jit(lambda n: g(n))\n" + M + "return f(n)",
        "2 *",
        "3 *",
    ),
    "axes of vmap": (
        "import jax\nf = jax.vmap(lambda a: a.sum(), in_axes=0)\n" + M + "return f(n)",
        "in_axes=0",
        "in_axes=1",
    ),
    "rule of a custom_vjp": (
        "import jax\n@jax.custom_vjp\ndef f(x): return x * x\n"
        "f.defvjp(lambda x: (f(x), x), lambda x, g: (2. * g,))\n"
        + M
        + "return jax.grad(f)(1. * n)",
        "2. * g",
        "3. * g",
    ),
    "rule of a custom_jvp": (
        "import jax\n@jax.custom_jvp\ndef f(x): return x * x\n"
        "@f.defjvp\ndef r(p, t): return f(*p), 2. * t[0]\n" + M + "return jax.grad(f)(1. * n)",
        "2. * t",
        "3. * t",
    ),
    "partial": (
        "def f(n, key, c): return c * n\nmeasure = functools.partial(f, c=2)",
        "c=2",
        "c=3",
    ),
    "state of a bound method": (
        "class C:\n    def __init__(self, a): self.a = a\n"
        "    def measure(self, n, key): return self.a * n\nmeasure = C(2).measure",
        "C(2)",
        "C(3)",
    ),
    "code of a bound method": (
        "class C:\n    def measure(self, n, key): return 2 * n\nmeasure = C().measure",
        "2 * n",
        "3 * n",
    ),
    "a metaclass": (
        "class T(type):\n    def f(cls, n): return 2 * n\nclass C(metaclass=T): pass\n"
        + M
        + "return C.f(n)",
        "2 * n",
        "3 * n",
    ),
    "a base": (
        "class A:\n    a = 2\nclass C(A): pass\n" + M + "return C.a * n",
        "a = 2",
        "a = 3",
    ),
    "a property": (
        "class C:\n    @property\n    def a(self): return 2\n" + M + "return C().a * n",
        "return 2",
        "return 3",
    ),
    "default of a dataclass": (
        "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass C:\n    a: float = 2.\n"
        + M
        + "return C().a * n",
        "2.",
        "3.",
    ),
    "an enum": (
        "import enum\nclass E(enum.Enum):\n    A = 2\n    B = 5\n" + M + "return E.A.value * n",
        "A = 2",
        "A = 3",
    ),
    "a NamedTuple": (
        "from typing import NamedTuple\nclass C(NamedTuple):\n    a: float = 1.\n"
        "    def f(self, n): return 2 * n\nc = C()\n" + M + "return c.f(n)",
        "2 * n",
        "3 * n",
    ),
    "a list with methods": (
        "class C(list):\n    def f(self, n): return 2 * n\nc = C()\n" + M + "return c.f(n)",
        "2 * n",
        "3 * n",
    ),
    "a dict with methods": (
        "class C(dict):\n    def __missing__(self, n): return 2 * n\nc = C()\n" + M + "return c[n]",
        "2 * n",
        "3 * n",
    ),
    "instance of an ABC": (
        "import abc\nclass A(abc.ABC): pass\nclass C(A):\n    def f(self, n): return 2 * n\n"
        "c = C()\n" + M + "return c.f(n)",
        "2 * n",
        "3 * n",
    ),
    "field of an equinox.Module": (
        "import equinox\nclass C(equinox.Module):\n    a: float\n"
        "    def __call__(self, n): return self.a * n\nc = C(2.)\n" + M + "return c(n)",
        "C(2.)",
        "C(3.)",
    ),
    "code of an equinox.Module": (
        "import equinox\nclass C(equinox.Module):\n    a: float\n"
        "    def __call__(self, n): return 2 * n\nc = C(2.)\n" + M + "return c(n)",
        "2 * n",
        "3 * n",
    ),
    "np.vectorize": (
        "import numpy as np\ndef f(n): return 2 * n\ng = np.vectorize(f)\n" + M + "return g(n)",
        "2 * n",
        "3 * n",
    ),
    "object array": (
        "import numpy as np\ndef f(n): return 2 * n\nc = np.array([f], dtype=object)\n"
        + M
        + "return c[0](n)",
        "2 * n",
        "3 * n",
    ),
    "a decorator": (
        "def by(c):\n    def wrap(f):\n        @functools.wraps(f)\n"
        "        def g(*a, **k): return c * f(*a, **k)\n        return g\n    return wrap\n"
        "@by(2)\n" + M + "return n",
        "by(2)",
        "by(3)",
    ),
    "a decorator that is an object": (
        "class By:\n    def __init__(self, f, c):\n        functools.update_wrapper(self, f)\n"
        "        self.c = c\n    def __call__(self, n, key): return self.c * n\n"
        "measure = By(lambda n, key: n, 2)",
        "n, 2",
        "n, 3",
    ),
    "a network": (
        "network = ntk.Network((3, 4, 1))\n" + M + "return network.widths[1] * n",
        "4, 1",
        "5, 1",
    ),
    "recursion": (M + "return measure(n - 1, key) if n else 2", "else 2", "else 3"),
    "a generator": (M + "return sum(2 * i for i in range(n))", "2 * i", "3 * i"),
    "a random key": (
        "import jax\nk = jax.random.key(2)\n" + M + "return jax.random.normal(k)",
        "key(2)",
        "key(3)",
    ),
    "a random key's generator": (
        "import jax\nk = jax.random.key(2, impl='rbg')\n"
        + M
        + "return jax.random.normal(jax.random.fold_in(k, n))",
        "'rbg'",
        "'unsafe_rbg'",
    ),
    "a function in another module": (
        "import ntk_utils.data\nntk_utils.data.uniform_sphere = lambda key, n, d: 2 * n\n"
        + M
        + "return ntk.data.uniform_sphere(key, n, 1)",
        "2 * n",
        "3 * n",
    ),
    "one that passes for the original": (
        "import ntk_utils.data, ntk_utils.networks as o\nc = 2\n"
        "ntk_utils.data.gaussian = functools.wraps(o.init_params)(lambda *a: c * a[1])\n"
        + M
        + "return ntk.data.gaussian(key, n)",
        "c = 2",
        "c = 3",
    ),
}

# a cell that is still empty while the function is measured
EMPTY = """
def cell(c):
    def measure(n, key): return c * n if n < 5 else later
    before = _fingerprint.fingerprint(measure)
    later = 1
    return before
"""

RUN_CELLS = (
    """
import __main__
def fingerprints(cells):
    found = {}
    for i, (name, cell) in enumerate(cells.items()):
        exec(compile(cell, f"<cell {i}>", "exec"), vars(__main__))
        found[name] = _fingerprint.fingerprint(measure)
    return found
"""
    + EMPTY
    + """
turns = json.load(sys.stdin) if sys.argv[1:] == ["-"] else json.loads(Path(sys.argv[1]).read_text())
print(json.dumps([[*map(fingerprints, turns)], [cell(2), cell(3)]]))
"""
)


@pytest.fixture(scope="module")
def cells_in_turn(tmp_path_factory):
    """Fingerprints: of the cells, of the changed cells, and in a process with other text around."""
    folder = tmp_path_factory.mktemp("cells")
    cells = {name: cell for name, (cell, _, _) in CELLS.items()}
    changed = {name: cell.replace(old, new) for name, (cell, old, new) in CELLS.items()}
    around = {
        name: "UNRELATED = [1, 2]\n\n\n# a comment\n"
        + cell.replace("\n", "  # another\n\n").replace("'b', 'c'", "'c', 'b'")
        + "\nclass Other: pass"
        for name, cell in cells.items()
    }
    results = []
    for seed, turns in ((1, [cells, changed]), (2, [around])):
        (folder / "turns").write_text(json.dumps(turns))
        results.append(in_a_new_process(RUN_CELLS, folder / "turns", hash_seed=seed, folder=folder))
    ((first, other), empty), ((again,), _) = results
    return first, other, again, empty


@pytest.mark.parametrize("case", CELLS)
def test_a_changed_cell_is_measured_anew(cells_in_turn, case):
    first, other, _, _ = cells_in_turn
    assert first[case] != other[case]


@pytest.mark.parametrize("case", CELLS)
def test_the_same_cell_is_read_among_other_cells_comments_lines_and_orders_of_sets(
    cells_in_turn, case
):
    first, _, again, _ = cells_in_turn
    assert first[case] == again[case]


def test_a_closure_whose_cell_is_still_empty_has_a_fingerprint(cells_in_turn):
    *_, (two, three) = cells_in_turn
    assert two != three


def test_a_module_edited_beside_an_ipython_session_has_a_fingerprint(module, monkeypatch):
    # what IPython adds to the builtins refers to the whole session, which no two runs share
    monkeypatch.setitem(vars(builtins), "get_ipython", iter(()).__next__)
    monkeypatch.setitem(vars(builtins), "session", (i for i in ()))
    assert fingerprint(module(2).measure)


def test_what_two_runs_cannot_compare_is_refused():
    generator = (i for i in range(3))
    with pytest.raises(TypeError, match="measure: cannot tell between two runs"):
        fingerprint(lambda n, key: next(generator))  # noqa: ARG005
