"""Sweeps: seeds × sizes → one tidy table, on several processes and with a cache if asked for."""

import concurrent.futures
import functools
import itertools
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import SupportsIndex

import jax
import numpy as np
import pandas as pd

from ntk_utils import _checks
from ntk_utils._progress import progress_bar


def sweep(
    measure: Callable,
    grid: Mapping[str, Iterable] | Iterable[Mapping],
    seeds: Iterable[SupportsIndex],
    *,
    same_draws: bool = False,
    executor: concurrent.futures.Executor | None = None,
    cache: str | os.PathLike | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure something at every point of a grid, for every seed, and return one tidy table.

    The random key of a measurement depends on its seed and its point alone: the same pair gives
    the same numbers in any other grid and any order, and different points draw independently (those
    that are different in 12 digits).

    Args:
      measure: called as `measure(**point, key=key)`; returns one number, or a mapping or named
        tuple of them. A sequence of numbers under one name becomes columns name_0, name_1, …
      grid: either a mapping from names to values, which stands for all combinations, or the points
        themselves, each a mapping from names to values with the same names. Values are numbers,
        strings, or sequences of them.
      seeds: different integers >= 0.
      same_draws: the random key depends on the seed alone: at a seed all points draw the same, so
        that they differ in nothing but the point.
      executor: where to measure, several points at a time: any `concurrent.futures.Executor`, such
        as `ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))` (JAX must not be
        forked) or Dask's `client.get_executor()`. It stays open. The table is the same. If a worker
        dies, a note on the error names the points that it can have been at.
      cache: folder for finished measurements. Each is written at once, after an error or an
        interrupt too; the same sweep run again, whole or in part, reads it back and measures only
        what is missing. A measurement belongs to what `measure` refers to in the notebook, to all
        source files of yours and to the versions of what is installed: after a change nothing old
        is read. Files, clocks and environment variables that `measure` reads, and values that are
        set inside of imported modules at run time, do not count.
      progress: show a progress bar. The environment variable TQDM_DISABLE=1 switches it off where
        nobody looks: a stored bar looks like a dead run.

    Returns: a table with one row a measurement: the names of the grid, `seed`, then the measured
      names (`value` for a plain number); ordered by point, then by seed.

    Raises:
      ValueError: no point, no seed, a repeated point or seed, points with different names, a name
        that is taken by `seed` or `key`, a measured name that comes twice or that the table has.
      TypeError: `measure` is not callable or returns something else, a seed is no integer, a value
        cannot be written as JSON, `executor` is none; `measure` refers to something that cannot be
        sent to another process (with an executor) or compared between two runs (with a cache).

    Warns:
      RuntimeWarning: what is in `cache` is damaged, and is measured again; or nothing can be
        written there.
    """
    if not isinstance(same_draws, bool):
        raise TypeError(f"same_draws: expected True or False, got {same_draws!r}")
    if not callable(measure):
        raise TypeError(f"measure: expected a function, got {type(measure).__name__}")
    if executor is not None and not isinstance(executor, concurrent.futures.Executor):
        raise TypeError(
            f"executor: expected a concurrent.futures.Executor, got {type(executor).__name__}"
        )
    if cache is not None and not isinstance(cache, str | os.PathLike):
        raise TypeError(f"cache: expected the path of a folder, got {type(cache).__name__}")
    points = _points(grid)
    seeds = _checks.iterable("seeds", seeds)
    seeds = [_checks.order(f"seeds[{i}]", seed) for i, seed in enumerate(seeds)]
    if not seeds:
        raise ValueError("seeds: expected at least one integer, got none")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: expected different integers, got {seeds}")

    jobs = dict(enumerate(itertools.product(points, seeds, [same_draws])))
    names = [
        (_as_text(point) + " same draws" * same_draws, seed) for point, seed, _ in jobs.values()
    ]
    measured, store = {}, None
    if cache is not None:
        from ntk_utils.lab._store import Store

        store = Store(cache, measure)
        found = {i: store.load(*name) for i, name in enumerate(names)}
        measured = {i: result for i, result in found.items() if result is not None}

    def keep(i, result):
        measured[i] = result
        if store:
            store.save(*names[i], result)

    missing = {i: job for i, job in jobs.items() if i not in measured}
    with progress_bar(len(jobs), silent=not progress, initial=len(measured)) as bar:
        for _ in _measured_one_by_one(measure, missing, executor, keep):
            bar.update()
    rows = [{**point, "seed": seed, **measured[i]} for i, (point, seed, _) in jobs.items()]
    return pd.DataFrame(rows)


def _measured_one_by_one(measure, jobs: dict, executor, keep: Callable) -> Iterator[None]:
    """Measure every one of `jobs`, (point, seed, same_draws), and keep each result at once."""
    if executor is None:
        for i, job in jobs.items():
            yield keep(i, _measure(measure, *job))
        return
    if isinstance(executor, concurrent.futures.ThreadPoolExecutor):
        task = functools.partial(_measure, measure)  # threads share what the function refers to
    else:
        task = functools.partial(_measure_pickled, _pickled(measure))
    futures = {}
    try:
        for i, job in jobs.items():
            futures[executor.submit(task, *job)] = i
        for future in concurrent.futures.as_completed(list(futures)):
            yield keep(futures[future], future.result())
            del futures[future]
    except concurrent.futures.BrokenExecutor as error:
        broken = [jobs[i] for f, i in futures.items() if isinstance(f.exception(), type(error))]
        at_work = broken[: getattr(executor, "_max_workers", None)]  # they start in this order
        if at_work:
            named = " or ".join(f"{dict(p)}, seed {s}" for p, s, _ in at_work)
            error.add_note(f"sweep: a worker died, at {named}")
        raise
    finally:  # an error or an interrupt begins nothing new, and loses nothing that was begun
        for future, i in futures.items():
            if not future.cancel():
                future.add_done_callback(functools.partial(_keep_if_whole, keep, i))


def _keep_if_whole(keep, i: int, future) -> None:
    if not future.cancelled() and future.exception() is None:
        keep(i, future.result())


def _pickled(measure) -> bytes:
    import cloudpickle  # unlike pickle, it takes functions that a notebook defines

    try:
        return cloudpickle.dumps(measure)
    except Exception as error:  # whatever the objects to which it refers raise
        raise TypeError(
            f"measure: expected a function that can be sent to another process, got {error}"
        ) from error


def _measure_pickled(pickled: bytes, *job) -> dict[str, float]:
    return _measure(_unpickled(pickled), *job)


@functools.lru_cache(maxsize=4)
def _unpickled(pickled: bytes) -> Callable:
    """One copy for a worker process: what it has jitted is compiled once."""
    import cloudpickle

    return cloudpickle.loads(pickled)


def _measure(measure, point: Mapping, seed: int, same_draws: bool) -> dict[str, float]:
    try:
        result = measure(**point, key=_key(seed, {} if same_draws else point))
        return _measured(result, taken={*point, "seed"})
    except Exception as error:
        error.add_note(f"sweep: this was at {dict(point)}, seed {seed}")
        raise


def _measured(result, taken) -> dict[str, float]:
    try:
        columns = list(_columns(result))
    except (TypeError, ValueError) as error:
        raise TypeError(f"measure: expected numbers to be returned, got {result!r}") from error
    named = dict(columns)
    if len(named) < len(columns):  # a sequence "a" beside a number "a_0"
        raise ValueError(f"measure: expected different names, got {[name for name, _ in columns]}")
    if twice := taken & named.keys():
        raise ValueError(f"measure: expected names other than {sorted(taken)}, got {sorted(twice)}")
    return named


def _columns(result) -> Iterator[tuple[str, float]]:
    """Every number that was measured, with its name."""
    if hasattr(result, "_asdict"):
        result = result._asdict()
    for name, value in result.items() if isinstance(result, Mapping) else [("value", result)]:
        if np.iscomplexobj(value):  # float would drop the imaginary part of NumPy's
            raise TypeError("complex")
        if isinstance(result, Mapping) and np.ndim(value) == 1:
            yield from ((f"{name}_{i}", float(number)) for i, number in enumerate(value))
        else:
            yield name, float(value)


def _points(grid) -> list[dict]:
    if isinstance(grid, Mapping):
        values = [_checks.iterable(f"grid[{name!r}]", v) for name, v in grid.items()]
        points = [dict(zip(grid, combo, strict=True)) for combo in itertools.product(*values)]
    else:
        points = _checks.iterable("grid", grid)
    if not points or not points[0]:
        raise ValueError("grid: expected at least one point, got none")
    for point in points:
        if not isinstance(point, Mapping):
            raise TypeError(f"grid: expected points that map names to values, got {point!r}")
        if point.keys() != points[0].keys():
            raise ValueError(
                f"grid: expected the same names at every point, "
                f"got {list(points[0])} and {list(point)}"
            )
        if taken := {"seed", "key"} & point.keys():
            raise ValueError(
                f"grid: expected other names than 'seed' and 'key', got {sorted(taken)}"
            )
    if len({_as_text(point) for point in points}) < len(points):
        raise ValueError(f"grid: expected different points, got {points}")
    return [dict(point) for point in points]


def _as_text(point: Mapping) -> str:
    """The point as text, the same for 3 and numpy.int64(3), whatever the order of the names."""
    try:
        return json.dumps(point, sort_keys=True, default=lambda value: value.tolist())
    except (TypeError, AttributeError) as error:
        raise TypeError(
            f"grid: expected numbers, strings or sequences of them, got {point!r}"
        ) from error


def _key(seed: int, point: Mapping) -> jax.Array:
    """Of a float 12 digits count: the last ones of an exp or a log differ between processors."""
    rounded = json.loads(_as_text(point), parse_float=lambda text: float(f"{float(text):.12g}"))
    text = json.dumps(rounded, sort_keys=True)
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(text.encode()))
