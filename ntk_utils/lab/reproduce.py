"""Execute notebooks headless and report every claim: ``python -m ntk_utils.lab.reproduce``.

Writes, for each notebook as it finishes, ``build/html/<name>.html``,
``build/figures/<name>-<n>.png`` and its rows of ``build/verdicts.csv``; prints one line a claim,
with its outcome and kind, and at the end how many there are of each. ``build/claims.csv`` then has
one row a claim: on how many seeds it holds. Of several seeds each has a folder for its pages and
figures, ``build/seed-<seed>``. The exit status is 1 if a claim fails, a notebook stops with an
error, or makes no claim.
Several notebooks run at a time, each on its own with one BLAS thread.
"""

import argparse
import base64
import csv
import dataclasses
import itertools
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import nbformat
import pandas as pd
import papermill
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from ntk_utils.lab._jupyter import AsyncFileKernelManager
from ntk_utils.lab.claims import VERDICTS_FILE, ClaimsFail, Verdict, counts

FIELDS = ("notebook", "seed", *(field.name for field in dataclasses.fields(Verdict)))


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, execute the notebooks, return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ntk_utils.lab.reproduce", description=__doc__)
    parser.add_argument("notebooks", nargs="+", type=Path, help="notebooks to execute")
    parser.add_argument("--out", type=Path, default=Path("build"), help="folder for the results")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[None], help="override SEED in every notebook"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="notebooks at a time (all processors)"
    )
    parser.add_argument(
        "--first-figure", type=Path, help="write the first stored figure there, and execute nothing"
    )
    arguments = parser.parse_args(argv)
    if arguments.first_figure:
        stored = figures(nbformat.read(arguments.notebooks[0], as_version=4))
        arguments.first_figure.parent.mkdir(exist_ok=True)
        arguments.first_figure.write_bytes(stored[0])
        return 0

    runs = list(itertools.product(arguments.seeds, arguments.notebooks))
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        file = open(arguments.out / "verdicts.csv", "w", newline="", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        parser.error(f"argument --out: expected a folder to write to, got {error}")
    claims, failures = [], 0
    jobs = min(arguments.jobs, len(runs))
    print(f"{len(runs)} notebooks, {jobs} at a time", flush=True)
    spawn = multiprocessing.get_context("spawn")
    with file, ProcessPoolExecutor(jobs, mp_context=spawn) as pool:
        table = csv.DictWriter(file, FIELDS)
        table.writeheader()
        pending, several = {}, len(arguments.seeds) > 1
        for seed, path in runs:
            out = arguments.out / f"seed-{seed}" if several else arguments.out
            pending[pool.submit(reproduce, path, out, seed)] = seed, path
        for run in as_completed(pending):
            (seed, path), (verdicts, error, seconds) = pending[run], run.result()
            rows = [{"notebook": path.stem, "seed": seed, **verdict} for verdict in verdicts]
            table.writerows(rows)
            lines = [f"{path.stem}{f', seed {seed}' if several else ''} ({seconds:.0f} s)"]
            lines += ["  {outcome} · {kind} · {claim}".format(**row) for row in rows]
            if error or not verdicts:
                lines.append(f"  FAILS: {error or 'the notebook makes no claim'}")
                failures += 1
            print("\n".join(lines), flush=True)
            file.flush()
            claims += rows
    if claims:
        by_claim(claims).to_csv(arguments.out / "claims.csv", index=False)
    found = f": {counts(pd.DataFrame(claims))}" if claims else ""
    print(f"{len(claims)} claims{found}; {failures} notebooks failed")
    return int(failures > 0 or any(verdict["outcome"] == "FAILS" for verdict in claims))


def by_claim(rows: list[dict]) -> pd.DataFrame:
    """Count the outcomes of each claim over the seeds.

    Args:
      rows: records of verdicts, with the notebook and the seed of each.

    Returns: one row a claim, in the order of the notebooks: notebook, kind, claim, source, control
      (what it came out as, on any seed), and the numbers of seeds on which it holds, was not
      reached, and fails.
    """
    outcomes = {"holds": "holds", "not_reached": "not reached", "fails": "FAILS"}
    table = pd.DataFrame(rows).assign(
        **{name: lambda t, o=outcome: t.outcome == o for name, outcome in outcomes.items()}
    )
    of_claim = table.sort_values("notebook", kind="stable").groupby(
        ["notebook", "kind", "claim", "source"], sort=False
    )
    controls = of_claim.control.agg(lambda came: " or ".join(sorted(set(came))))
    return pd.concat([controls, of_claim[list(outcomes)].sum()], axis=1).reset_index()


def reproduce(path: Path, out: Path, seed: int | None) -> tuple[list[dict], str, float]:
    """Execute one notebook and write its page and figures.

    Args:
      path: the notebook; it is not changed.
      out: folder for the results.
      seed: value for the notebook's parameter SEED; None leaves the stored one.

    Returns: the records of its verdicts, the error that stopped it ("" if none did, or claims that
      fail), and the seconds that it took.
    """
    out.mkdir(parents=True, exist_ok=True)
    records = out / f"{path.stem}.jsonl"
    executed = out / f"{path.stem}.ipynb"
    records.write_text("")
    os.environ[VERDICTS_FILE] = str(records.resolve())
    # the threads of several kernels would wait for one another
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ["TQDM_DISABLE"] = "1"  # nobody looks at a bar
    error = ""
    try:
        papermill.execute_notebook(
            path,
            executed,
            parameters={} if seed is None else {"SEED": seed},
            kernel_name="python3",
            kernel_manager_class=AsyncFileKernelManager,
            cwd=path.parent,
            progress_bar=False,
        )
    except PapermillExecutionError as stop:
        # the verdicts themselves say which claims fail
        error = "" if stop.ename == ClaimsFail.__name__ else f"{stop.ename}: {stop.evalue}"
    verdicts = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]

    notebook = nbformat.read(executed, as_version=4)
    seconds = notebook.metadata.papermill.duration
    executed.unlink()
    records.unlink()
    for folder in ("html", "figures"):
        (out / folder).mkdir(exist_ok=True)
    page, _ = HTMLExporter().from_notebook_node(notebook)
    (out / "html" / f"{path.stem}.html").write_text(page, encoding="utf-8")
    for i, figure in enumerate(figures(notebook), start=1):
        (out / "figures" / f"{path.stem}-{i}.png").write_bytes(figure)
    return verdicts, error, seconds


def figures(notebook) -> list[bytes]:
    """Return the PNG figures among a notebook's outputs, in order."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pngs = [output.get("data", {}).get("image/png") for output in outputs]
    return [base64.b64decode(png) for png in pngs if png]


if __name__ == "__main__":
    sys.exit(main())
