"""A sweep with a cache: nothing that was measured is lost, nothing old is read."""

import functools
import multiprocessing
import os
import random
import time
import types
import warnings

import jax
import numpy as np
import pandas as pd
import pytest

from ntk_utils import Network, gaussian, sweep

GRID, SEEDS = {"n": [3, 4, 5]}, range(4)


def measure(n, log, *, key):
    """Two numbers of the key, and a line in a file for every call."""
    with open(log, "a") as file:
        file.write("called\n")
    time.sleep(0.003)
    a, b = np.asarray(jax.random.key_data(key)) / (7 * n)
    return {"a": float(a), "b": float(b)}


@pytest.fixture
def logged(tmp_path):
    """A measure, and how often it was called since one asked last."""
    log = tmp_path / "calls"
    log.touch()
    asked = 0

    def calls():
        nonlocal asked
        new = len(log.read_text().splitlines()) - asked
        asked += new
        return new

    return functools.partial(measure, log=str(log)), calls


def quiet_sweep(measure, cache=None, seeds=SEEDS, **options):
    return sweep(measure, GRID, seeds, cache=cache, progress=False, **options)


def entries(folder):
    return sorted(folder.rglob("output.pkl"))


# --- what is there is not measured again ----------------------------------------------------------


def test_a_second_sweep_reads_everything_and_gives_the_identical_table(logged, tmp_path):
    measure, calls = logged
    first = quiet_sweep(measure, tmp_path / "cache")
    assert calls() == len(first) == 12
    second = quiet_sweep(measure, str(tmp_path / "cache"))
    assert calls() == 0
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    pd.testing.assert_frame_equal(quiet_sweep(measure), second, check_exact=True)


def test_a_larger_sweep_measures_only_what_is_new(logged, tmp_path):
    measure, calls = logged
    quiet_sweep(measure, tmp_path, range(2))
    assert calls() == 6
    quiet_sweep(measure, tmp_path, range(3))
    assert calls() == 3


def test_what_was_measured_before_an_error_is_kept(logged, tmp_path):
    measure, calls = logged
    fails = tmp_path / "fails"
    fails.touch()

    def sometimes(n, key, path=str(fails)):
        if n == 5 and os.path.exists(path):
            raise RuntimeError("not today")
        return measure(n, key=key)

    with pytest.raises(RuntimeError, match="not today"):
        quiet_sweep(sometimes, tmp_path / "cache")
    assert calls() == 8
    fails.unlink()
    quiet_sweep(sometimes, tmp_path / "cache")
    assert calls() == 4


def killed(log, cache):
    quiet_sweep(functools.partial(measure, log=log), cache, range(10))


def test_a_sweep_killed_at_any_moment_and_run_again_loses_nothing(tmp_path):
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["ntk_utils.lab.sweep"])  # imports once for all 20
    uninterrupted = quiet_sweep(
        functools.partial(measure, log=str(tmp_path / "whole")), None, range(10)
    )
    moments = random.Random(0)
    stopped_in_the_middle = 0
    for i in range(20):
        log, cache = tmp_path / f"log{i}", tmp_path / f"cache{i}"
        log.touch()
        process = server.Process(target=killed, args=(str(log), cache))
        process.start()
        while not log.stat().st_size and process.is_alive():  # it has begun
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.2))
        process.kill()  # SIGKILL
        process.join()
        finished = len(entries(cache))
        stopped_in_the_middle += 0 < finished < 30
        begun = len(log.read_text().splitlines())
        assert finished <= begun <= finished + 1  # at most the one in hand is lost
        resumed = quiet_sweep(functools.partial(measure, log=str(log)), cache, range(10))
        assert len(log.read_text().splitlines()) - begun == 30 - finished
        pd.testing.assert_frame_equal(resumed, uninterrupted, check_exact=True)
    assert stopped_in_the_middle >= 10


# --- what is damaged is measured again ------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:0],
        lambda data: data[: len(data) // 2],
        lambda data: b"no pickle at all"[: len(data)],
        lambda data: data[:-20] + bytes(20),
        lambda data: data.replace(data[40:44], b"abcd"),
    ],
    ids=["empty", "truncated", "foreign", "zeros at the end", "four bytes changed"],
)
def test_a_damaged_entry_is_measured_again_with_a_warning(logged, tmp_path, damage):
    measure, calls = logged
    whole = quiet_sweep(measure, tmp_path)
    calls()
    victim = entries(tmp_path)[5]
    victim.write_bytes(damage(victim.read_bytes()))
    with pytest.warns(RuntimeWarning, match=r"cache: the entry of .* is damaged") as warned:
        mended = quiet_sweep(measure, tmp_path)
    assert len(warned) == 1
    assert calls() == 1
    pd.testing.assert_frame_equal(mended, whole, check_exact=True)
    quiet_sweep(measure, tmp_path)
    assert calls() == 0


def test_any_changed_byte_is_noticed_or_changes_nothing(tmp_path):
    one = functools.partial(sweep, lambda n, key: n / 3, {"n": [1]}, [0], progress=False)  # noqa: ARG005
    whole = one(cache=tmp_path)
    (entry,) = entries(tmp_path)
    data = entry.read_bytes()
    noticed = 0
    for i in range(len(data)):
        entry.write_bytes(data[:i] + bytes([data[i] ^ 0x41]) + data[i + 1 :])
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            table = one(cache=tmp_path)
        noticed += bool(warned)
        pd.testing.assert_frame_equal(table, whole, check_exact=True)
    assert noticed > len(data) / 2


# --- what has changed is measured again -----------------------------------------------------------

MODULE = """
import functools
import numpy as np
import jax
from ntk_utils import gaussian
import helpers

FACTOR = 2.0
ARRAY = np.arange(3)

def inner(n):
    return FACTOR * n + ARRAY.sum()

@jax.jit
def jitted(n):
    return inner(n)

class Shift:
    amount = 1.0
    def __init__(self, more): self.more = more
    def __call__(self, n): return n + self.amount + self.more

shift = Shift(0.5)

def decorated(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs) + 0.25
    return wrapper

@decorated
def measure(n, *, key, scale=1.0):
    "Says what it measures."
    # a comment
    return scale * float(jitted(n)) + shift(n) + rest(n)

def rest(n):
    return helpers.deep.constant() + (n in {"a", "b"}) + np.sqrt(4.0)
"""

HELPERS = "def constant():\n    return 7.0\n\ndef unused():\n    return 1\n"


def value(tmp_path, monkeypatch, module=MODULE, helpers=HELPERS):
    """The sweep's value and whether it was measured, with a measure from this source text."""
    deep = types.ModuleType("helpers.deep")
    exec(compile(helpers, "helpers/deep.py", "exec"), vars(deep))
    package = types.ModuleType("helpers")
    package.deep = deep
    user = types.ModuleType("user")
    with monkeypatch.context() as patch:
        for name, loaded in {"helpers": package, "helpers.deep": deep, "user": user}.items():
            loaded.__file__ = f"{name}.py"
            patch.setitem(__import__("sys").modules, name, loaded)
        exec(compile(module, "user.py", "exec"), vars(user))
        before = len(entries(tmp_path))
        table = sweep(user.measure, {"n": [1]}, [0], cache=tmp_path, progress=False)
        assert table["value"][0] == float(user.measure(1, key=None))
    return len(entries(tmp_path)) > before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FACTOR = 2.0", "FACTOR = 3.0"),
        ("arange(3)", "arange(4)"),
        ("FACTOR * n +", "FACTOR * n -"),
        ("amount = 1.0", "amount = 2.0"),
        ("n + self.amount", "n - self.amount"),
        ("Shift(0.5)", "Shift(0.6)"),
        ("+ 0.25", "+ 0.5"),
        ("scale=1.0", "scale=2.0"),
        ("np.sqrt(4.0)", "np.exp(4.0)"),
        ('{"a", "b"}', '{"a", 1}'),
        ("return 7.0", "return 8.0"),
    ],
)
def test_a_change_that_matters_is_measured(tmp_path, monkeypatch, old, new):
    assert value(tmp_path, monkeypatch)
    assert not value(tmp_path, monkeypatch)
    changed = MODULE.replace(old, new), HELPERS.replace(old, new)
    assert changed != (MODULE, HELPERS)
    assert value(tmp_path, monkeypatch, *changed)
    assert not value(tmp_path, monkeypatch, *changed)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Says what it measures.", "Says it better."),
        ("# a comment", "# another comment"),
        ("FACTOR = 2.0", "\n\nFACTOR = 2.0\nUNRELATED = 5"),
        ('{"a", "b"}', '{"b", "a"}'),
        ("return 1", "return 2"),
    ],
    ids=["docstring", "comment", "other lines", "order of a set", "a function nobody calls"],
)
def test_a_change_that_does_not_matter_is_not_measured(tmp_path, monkeypatch, old, new):
    assert value(tmp_path, monkeypatch)
    changed = MODULE.replace(old, new), HELPERS.replace(old, new)
    assert changed != (MODULE, HELPERS)
    assert not value(tmp_path, monkeypatch, *changed)


def test_captured_values_count(tmp_path):
    def shifted_by(amount):
        return lambda n, key: n + amount  # noqa: ARG005

    for amount in (1.0, 2.0, np.float64(3.0)):
        table = sweep(shifted_by(amount), {"n": [1]}, [0], cache=tmp_path, progress=False)
        assert table["value"].tolist() == [1 + amount]
    for network in (Network((3, 4, 1)), Network((3, 5, 1))):
        table = sweep(
            lambda n, key, network=network: network.widths[1],  # noqa: ARG005
            {"n": [1]},
            [0],
            cache=tmp_path,
            progress=False,
        )
        assert table["value"].tolist() == [network.widths[1]]


def test_the_axes_of_a_vmapped_function_count(tmp_path):
    for axis, expected in ((0, 3.0), (1, 5.0)):
        first = jax.vmap(lambda line: line.sum(), in_axes=axis)
        table = sweep(
            lambda n, key, first=first: first(np.array([[1.0, 2.0], [4.0, 8.0]]))[0],  # noqa: ARG005
            {"n": [1]},
            [0],
            cache=tmp_path,
            progress=False,
        )
        assert table["value"].tolist() == [expected]


class Wrapped:
    """A decorator that is an object, as functools.update_wrapper makes it."""

    def __init__(self, function, offset):
        functools.update_wrapper(self, function)
        self.offset = offset

    def __call__(self, n, key):
        return self.__wrapped__(n, key) + self.offset


def test_the_state_of_a_decorator_that_is_an_object_counts(tmp_path):
    for offset in (1.0, 2.0):
        wrapped = Wrapped(lambda n, key: n, offset)  # noqa: ARG005
        table = sweep(wrapped, {"n": [1]}, [0], cache=tmp_path, progress=False)
        assert table["value"].tolist() == [1 + offset]


def test_a_function_that_calls_itself_has_a_fingerprint(tmp_path):
    def down(n, key=None):  # noqa: ARG001
        return down(n - 1) if n else 0.0

    assert quiet_sweep(down, tmp_path)["value"].tolist() == [0.0] * 12


def test_what_two_runs_cannot_compare_is_refused_before_anything_is_measured(tmp_path):
    generator = (i for i in range(3))
    with pytest.raises(TypeError, match="measure: cannot tell between two runs"):
        quiet_sweep(lambda n, key: next(generator), tmp_path)  # noqa: ARG005
    assert not entries(tmp_path)


def test_another_process_finds_the_same_fingerprint(tmp_path):
    draw = functools.partial(gaussian, d=3)

    def norm(n, key):
        # the order of a set of strings differs from process to process
        return float(np.linalg.norm(draw(key, n=n))) if n not in {"a", "b", "c", "d"} else 0.0

    quiet_sweep(norm, tmp_path)
    before = len(entries(tmp_path))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        import cloudpickle

        pool.apply(_sweep_pickled, (cloudpickle.dumps(norm), tmp_path))
    assert len(entries(tmp_path)) == before


def _sweep_pickled(pickled, cache):
    import cloudpickle

    quiet_sweep(cloudpickle.loads(pickled), cache)
