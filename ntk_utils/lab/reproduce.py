"""Execute notebooks headless and report every claim: ``python -m ntk_utils.lab.reproduce``.

Writes, for each notebook as it finishes, ``build/html/<name>.html``,
``build/figures/<name>-<n>.png`` and its rows of ``build/verdicts.csv``; prints one line a claim,
with its outcome and kind, and at the end how many there are of each. The exit status is 1 if a
claim fails, a notebook stops with an error, or makes no claim.
Several notebooks run at a time, each on its own with one BLAS thread.
"""

import argparse
import base64
import csv
import dataclasses
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
    parser.add_argument("--seed", type=int, help="overrides SEED in every notebook")
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

    arguments.out.mkdir(parents=True, exist_ok=True)
    claims, failures = [], 0
    jobs = min(arguments.jobs, len(arguments.notebooks))
    print(f"{len(arguments.notebooks)} notebooks, {jobs} at a time", flush=True)
    with (
        open(arguments.out / "verdicts.csv", "w", newline="", encoding="utf-8") as file,
        ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        table = csv.DictWriter(file, FIELDS)
        table.writeheader()
        runs = {
            pool.submit(reproduce, path, arguments.out, arguments.seed): path
            for path in arguments.notebooks
        }
        for run in as_completed(runs):
            path, (verdicts, error, seconds) = runs[run], run.result()
            lines = [f"{path.stem} ({seconds:.0f} s)"]
            for verdict in verdicts:
                table.writerow({"notebook": path.stem, "seed": arguments.seed, **verdict})
                lines.append("  {outcome} · {kind} · {claim}".format(**verdict))
            if error or not verdicts:
                lines.append(f"  FAILS: {error or 'the notebook makes no claim'}")
                failures += 1
            print("\n".join(lines), flush=True)
            file.flush()
            claims += verdicts
    found = f": {counts(pd.DataFrame(claims))}" if claims else ""
    print(f"{len(claims)} claims{found}; {failures} notebooks failed")
    return int(failures > 0 or any(verdict["outcome"] == "FAILS" for verdict in claims))


def reproduce(path: Path, out: Path, seed: int | None) -> tuple[list[dict], str, float]:
    """Execute one notebook and write its page and figures.

    Args:
      path: the notebook; it is not changed.
      out: folder for the results.
      seed: value for the notebook's parameter SEED; None leaves the stored one.

    Returns: the records of its verdicts, the error that stopped it ("" if none did, or claims that
      fail), and the seconds that it took.
    """
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
