"""A sweep with a cache: nothing that was measured is lost, whatever happens to its file."""

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import random
import signal
import sqlite3
import threading
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from ntk_utils import sweep
from ntk_utils.lab import _store

GRID, SEEDS = {"n": [3, 4, 5]}, range(4)


def measure(n, log, *, key):
    """Two numbers of the key, and a line in a file for every call."""
    time.sleep(0.003)
    a, b = np.asarray(jax.random.key_data(key)) / (7 * n)
    with open(log, "a") as file:
        file.write("called\n")
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


@pytest.fixture
def no_fingerprint(monkeypatch):
    """What a measure depends on is the matter of other tests."""
    monkeypatch.setattr(_store, "fingerprint", lambda measure: "0")  # noqa: ARG005


class Hasty(sqlite3.Connection):
    """Waits for no disk."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        with contextlib.suppress(sqlite3.DatabaseError):
            self.execute("PRAGMA synchronous = OFF")


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Hasty))


@pytest.fixture(scope="module")
def server():
    """Processes that start at once: what they need is imported for all of them once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ntk_utils.lab._store", "ntk_utils.lab.sweep", "cloudpickle"])
    return context


def quiet_sweep(measure, cache=None, seeds=SEEDS, grid=GRID, **options):
    return sweep(measure, grid, seeds, cache=cache, progress=False, **options)


def files(folder):
    return sorted(Path(folder).glob("*.sqlite"))


def entries(folder):
    """How many measurements are on disk."""
    count = 0
    for file in files(folder):
        with contextlib.closing(sqlite3.connect(file)) as db:
            if db.execute("SELECT * FROM sqlite_master").fetchall():  # else killed at its creation
                ((here,),) = db.execute("SELECT COUNT(*) FROM measured")
                count += here
    return count


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0, 5e-324, 0.1 + 0.2, 1e308])
def test_every_float_comes_back_bit_for_bit(tmp_path, value):
    for _ in range(2):
        (read,) = quiet_sweep(lambda n, key: value, tmp_path, [0], {"n": [1]})["value"]  # noqa: ARG005
        assert np.float64(read).tobytes() == np.float64(value).tobytes()


def test_two_caches_in_one_process_are_both_whole_in_the_next_sweep(logged, tmp_path):
    measure, calls = logged
    other = functools.partial(measure, log=str(tmp_path / "calls"))
    for one, folder in ((measure, "A"), (other, "A"), (measure, "B")):
        quiet_sweep(one, tmp_path / folder)
    assert calls() == 24  # the two are equal, up to the order of their partials
    quiet_sweep(measure, tmp_path / "B")
    quiet_sweep(measure, tmp_path / "A")
    assert calls() == 0


@pytest.mark.parametrize("folder", ["", ".", "joblib"])
def test_a_cache_in_the_working_directory_is_one_file_there_and_no_other(
    tmp_path, monkeypatch, folder
):
    monkeypatch.chdir(tmp_path)
    quiet_sweep(lambda n, key: n, folder)  # noqa: ARG005
    (file,) = files(folder)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / file]


def test_a_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cache: expected a folder"):
        quiet_sweep(lambda n, key: n, tmp_path / "file")  # noqa: ARG005


# --- errors, interrupts, dead processes -----------------------------------------------------------


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
    assert calls() == entries(tmp_path / "cache") == 8
    fails.unlink()
    quiet_sweep(sometimes, tmp_path / "cache")
    assert calls() == 4


def killed(log, cache):
    _store.fingerprint = lambda measure: "0"  # noqa: ARG005  (of its own process)
    quiet_sweep(functools.partial(measure, log=log), cache, range(10))


@pytest.mark.usefixtures("hasty", "no_fingerprint")  # the one that is killed is not hasty
def test_a_sweep_killed_at_any_moment_and_run_again_loses_nothing(server, tmp_path):
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
        finished = entries(cache)
        stopped_in_the_middle += 0 < finished < 30
        begun = len(log.read_text().splitlines())
        assert finished <= begun <= finished + 1  # at most the one in hand is lost
        resumed = quiet_sweep(functools.partial(measure, log=str(log)), cache, range(10))
        assert len(log.read_text().splitlines()) - begun == 30 - finished
        pd.testing.assert_frame_equal(resumed, uninterrupted, check_exact=True)
    assert stopped_in_the_middle >= 5


@pytest.mark.usefixtures("no_fingerprint")
def test_four_processes_on_one_cache_keep_everything(server, tmp_path):
    log = tmp_path / "log"
    processes = [server.Process(target=killed, args=(str(log), tmp_path / "c")) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert entries(tmp_path / "c") == 30
    log.unlink()
    killed(str(log), tmp_path / "c")
    assert not log.exists()


def finished(n, log):
    with open(log, "a") as file:
        file.write("x")
    return float(n)


def test_one_point_fails_while_others_are_at_work_and_these_are_kept(server, tmp_path):
    log = tmp_path / "log"

    def one_fails(n, key):  # noqa: ARG001
        time.sleep(0.1 + 0.4 * (n > 0))
        if n == 0:
            raise RuntimeError("bad point")
        return finished(n, log)

    with (
        pytest.raises(RuntimeError, match="bad point"),
        concurrent.futures.ProcessPoolExecutor(3, mp_context=server) as executor,
    ):
        quiet_sweep(one_fails, tmp_path, [0], {"n": [0, 1, 2]}, executor=executor)
    assert log.stat().st_size == entries(tmp_path) == 2


@pytest.mark.usefixtures("hasty")
def test_one_of_many_points_fails_in_a_thread_and_all_that_finished_are_kept(tmp_path):
    log = tmp_path / "log"

    def fast(n, key):  # noqa: ARG001
        if n == 7:
            raise RuntimeError("bad point")
        return finished(n, log)

    with (
        pytest.raises(RuntimeError, match="bad point"),
        concurrent.futures.ThreadPoolExecutor(2) as executor,
    ):
        quiet_sweep(fast, tmp_path, [0], {"n": range(500)}, executor=executor)
    assert 7 <= log.stat().st_size == entries(tmp_path) < 500


@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_an_interrupt_loses_nothing_that_was_begun(server, tmp_path, kind):
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("only the main thread is interrupted")
    log = tmp_path / "log"
    log.touch()

    def slow(n, key):  # noqa: ARG001
        time.sleep(0.4)
        return finished(n, log)

    def interrupt():
        while log.stat().st_size < 2:
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):  # noqa: SIM117, PT012
            with (
                concurrent.futures.ProcessPoolExecutor(2, mp_context=server)
                if kind == "processes"
                else concurrent.futures.ThreadPoolExecutor(2)
            ) as executor:
                threading.Thread(target=interrupt, daemon=True).start()
                quiet_sweep(slow, tmp_path, [0], {"n": range(12)}, executor=executor)
    finally:
        signal.signal(signal.SIGINT, before)
    assert 2 < log.stat().st_size == entries(tmp_path) < 12


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_is_named_by_its_point_and_its_neighbours_are_kept(
    server, tmp_path, workers
):
    def dies(n, key):  # noqa: ARG001
        if n == 3:
            while entries(tmp_path) < 2:  # the neighbours are kept before it dies
                time.sleep(0.01)
            os._exit(1)
        return float(n)

    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=server) as executor:
        with pytest.raises(concurrent.futures.process.BrokenProcessPool) as error:
            quiet_sweep(dies, tmp_path, [7], {"n": range(1, 4)}, executor=executor)
        assert error.value.__notes__ == ["sweep: a worker died, at {'n': 3}, seed 7"]
        assert entries(tmp_path) == 2
        with pytest.raises(concurrent.futures.process.BrokenProcessPool) as error:
            quiet_sweep(dies, None, [7], executor=executor)
        assert not hasattr(error.value, "__notes__")  # it died before, at none of these


def test_with_several_workers_the_note_names_those_that_can_have_been_at_work(server):
    def dies(n, key):  # noqa: ARG001
        if n == 2:
            os._exit(1)
        time.sleep(5 * (n > 0))
        return float(n)

    with (
        concurrent.futures.ProcessPoolExecutor(2, mp_context=server) as executor,
        pytest.raises(concurrent.futures.process.BrokenProcessPool) as error,
    ):
        quiet_sweep(dies, None, [0], {"n": range(9)}, executor=executor)
    assert error.value.__notes__ == [
        "sweep: a worker died, at {'n': 1}, seed 0 or {'n': 2}, seed 0"
    ]


# --- what is damaged is measured again ------------------------------------------------------------


def swept_again(measure, cache, **options):
    """The table and the warnings."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        table = quiet_sweep(measure, cache, **options)
    return table, [str(warning.message) for warning in warned]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:50],
        lambda data: b"no database at all" + data[18:],
        lambda data: data[:1],
        lambda data: data[:-20] + bytes(20),
        lambda data: data[:5000] + bytes(len(data) - 5000),
        lambda data: data.replace(b'["{', b"abc"),
    ],
    ids=["half", "50 bytes", "head", "1 byte", "zeros at the end", "zeros", "names"],
)
def test_a_damaged_file_is_set_aside_and_measured_again_with_a_warning(logged, tmp_path, damage):
    measure, calls = logged
    whole = quiet_sweep(measure, tmp_path)
    calls()
    (file,) = files(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    mended, warned = swept_again(measure, tmp_path)
    assert len(warned) == 1
    assert "is damaged, what cannot be read is measured again" in warned[0]
    assert calls() > 0
    assert file.with_suffix(".damaged").exists()
    pd.testing.assert_frame_equal(mended, whole, check_exact=True)
    pd.testing.assert_frame_equal(quiet_sweep(measure, tmp_path), whole, check_exact=True)
    assert calls() == 0


def test_an_empty_file_is_an_empty_cache(logged, tmp_path):
    measure, calls = logged
    whole = quiet_sweep(measure, tmp_path)
    (file,) = files(tmp_path)
    file.write_bytes(b"")
    pd.testing.assert_frame_equal(quiet_sweep(measure, tmp_path), whole, check_exact=True)
    assert calls() == 24


def test_one_damaged_entry_costs_no_other(logged, tmp_path):
    measure, calls = logged
    whole = quiet_sweep(measure, tmp_path)
    calls()
    (file,) = files(tmp_path)
    with contextlib.closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE measured SET numbers = '{}' WHERE name LIKE '%4%, 2]'")
    mended, warned = swept_again(measure, tmp_path)
    assert len(warned) == 1
    assert calls() == 1
    pd.testing.assert_frame_equal(mended, whole, check_exact=True)
    quiet_sweep(measure, tmp_path)
    assert calls() == 0


@pytest.mark.usefixtures("hasty", "no_fingerprint")
def test_any_changed_byte_is_noticed_or_changes_nothing(tmp_path):
    def third(n, key):  # noqa: ARG001
        return n / 3

    swept = functools.partial(swept_again, third, tmp_path, seeds=[0, 1], grid={"n": [1]})
    file = tmp_path / "sweep-0.sqlite"
    with contextlib.closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA page_size = 512")
        db.execute(_store._CREATE)
    whole, _ = swept()
    data = file.read_bytes()
    assert len(data) == 1024
    noticed = 0
    for i in range(len(data)):
        file.write_bytes(data[:i] + bytes([data[i] ^ 0x41]) + data[i + 1 :])
        table, warned = swept()
        pd.testing.assert_frame_equal(table, whole, check_exact=True)
        if warned:
            noticed += 1
            assert entries(tmp_path) == 2
            assert swept()[1] == []  # it is mended
    assert noticed > 250


# --- where nothing can be written or read ---------------------------------------------------------


def test_in_a_folder_that_is_read_only_the_table_is_right(logged, tmp_path, monkeypatch):
    measure, calls = logged
    whole = quiet_sweep(measure, tmp_path, range(2))
    (file,) = files(tmp_path)
    connect = sqlite3.connect  # permissions do not bind root
    monkeypatch.setattr(
        sqlite3,
        "connect",
        lambda file, **options: connect(f"file:{file}?mode=ro", uri=True, **options),
    )
    table, warned = swept_again(measure, tmp_path, seeds=range(2))
    pd.testing.assert_frame_equal(table, whole, check_exact=True)
    assert (warned, calls()) == ([], 6)
    table, warned = swept_again(measure, tmp_path, seeds=range(3))
    assert calls() == len(warned) == 3
    assert all("could not be kept (attempt to write a readonly database)" in w for w in warned)
    pd.testing.assert_frame_equal(table, quiet_sweep(measure, None, range(3)), check_exact=True)

    def refuse(*_):
        raise PermissionError("read-only")

    calls()
    file.write_bytes(file.read_bytes()[:700])
    monkeypatch.setattr(Path, "replace", refuse)
    table, warned = swept_again(measure, tmp_path, seeds=range(2))
    assert calls() == 6
    assert "is damaged" in warned[0]
    pd.testing.assert_frame_equal(table, whole, check_exact=True)


def test_on_a_full_disk_the_table_is_right_and_what_was_there_before_is_kept(
    logged, tmp_path, monkeypatch
):
    measure, calls = logged
    quiet_sweep(measure, tmp_path, range(2))
    connect = sqlite3.connect

    def small(*args, **options):
        db = connect(*args, **options)
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages}")
        return db

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", small)
        table, warned = swept_again(measure, tmp_path, seeds=range(40))
    assert warned
    assert all("could not be kept (database or disk is full)" in warning for warning in warned)
    calls()
    pd.testing.assert_frame_equal(table, quiet_sweep(measure, tmp_path, range(40)))
    assert calls() == len(warned)


def test_a_file_that_may_not_be_read_is_left_as_it_is(logged, tmp_path, monkeypatch):
    measure, _ = logged
    whole = quiet_sweep(measure, tmp_path)
    (file,) = files(tmp_path)
    data = file.read_bytes()
    connect = sqlite3.connect  # permissions do not bind root
    with monkeypatch.context() as patch:
        patch.setattr(
            sqlite3, "connect", lambda _, **options: connect("/nowhere/at/all", **options)
        )
        table, warned = swept_again(measure, tmp_path)
    assert len(warned) == 13
    pd.testing.assert_frame_equal(table, whole, check_exact=True)
    assert file.read_bytes() == data
