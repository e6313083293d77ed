"""Tables measured from the shell: a run that is stopped goes on later where it was."""

import argparse
import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd

from ntk_utils.lab.sweep import sweep


def measure(description: str, tables: Mapping[str, tuple[Callable, list[Mapping]]], trials: int):
    """Measure the tables that the command line asks for, and write each as a CSV file.

    Args:
      description: what stands above the options in the help.
      tables: for the name of each table, what is measured and the points, as `sweep` takes them.
      trials: seeds a point where the command line does not say it.

    The rows of a table are the points. Of what `sweep` measured it has "mean" and "sd" over the
    trials, or "name mean" and "name sd" if that has names; then "trials", their number.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--trials", type=int, default=trials, help=f"a point (default: {trials})")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--cache", type=Path, default="build", help="for finished trials")
    parser.add_argument("--out", type=Path, default="notebooks/data", help="for the tables")
    parser.add_argument("--only", choices=list(tables), help="one of the tables (default: all)")
    arguments = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, mp_context=spawn) as executor:
        for name in [arguments.only] if arguments.only else tables:
            trial, points = tables[name]
            seeds, cache = range(arguments.trials), arguments.cache / name
            drawn = sweep(trial, points, seeds, executor=executor, cache=cache)
            table = _by_point(drawn, list(points[0]))
            table.to_csv(arguments.out / f"{name}.csv", index=False, float_format="%.6g")


def _by_point(drawn: pd.DataFrame, point: Iterable[str]) -> pd.DataFrame:
    names = drawn.columns.difference([*point, "seed"], sort=False)
    of_point = drawn.groupby(point, sort=False)
    parts = {
        "" if name == "value" else f"{name} ": of_point[name].agg(["mean", "std"]) for name in names
    }
    renamed = [
        part.rename(columns={"mean": f"{prefix}mean", "std": f"{prefix}sd"})
        for prefix, part in parts.items()
    ]
    return pd.concat([*renamed, of_point.size().rename("trials")], axis=1).reset_index()
