import csv
import re
import runpy
import sys
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from ntk_utils.lab import reproduce

# papermill's and Jupyter's own code warns of changes to come
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

SMALL = """
claims.verdict(
    "SEED is small", kind="{kind}", predicted="< 10", measured=SEED, holds=SEED < 10,
    {more}source="derived here",
)
"""
HOLDS = SMALL.format(kind="observation", more="control=False, ")
IDENTITY = SMALL.format(kind="identity", more="").replace("is small", "is a number")
NOT_REACHED = HOLDS.replace("is small", "is tiny").replace(
    "control", 'not_reached="SEED is 3; expected from 100", control'
)
CONCLUDE = "claims.conclude()"
FIGURE = "import matplotlib.pyplot as plt; fig, ax = plt.subplots(figsize=(1, 1)); plt.show()"


@pytest.fixture
def notebook(tmp_path):
    def write(name, *cells):
        first = new_code_cell("from ntk_utils import Claims\nclaims = Claims('any SEED')")
        parameters = new_code_cell("SEED = 0", metadata={"tags": ["parameters"]})
        path = tmp_path / f"{name}.ipynb"
        rest = [new_code_cell(cell) for cell in cells]
        metadata = {"language_info": {"name": "python"}}
        nbformat.write(new_notebook(cells=[first, parameters, *rest], metadata=metadata), path)
        return path

    return write


def run(tmp_path, *paths, seed=None):
    options = ["--out", str(tmp_path / "build")] + (["--seeds", str(seed)] if seed else [])
    status = reproduce.main([*map(str, paths), *options])
    with open(tmp_path / "build" / "verdicts.csv", newline="", encoding="utf-8") as file:
        return status, list(csv.DictReader(file))


def test_claims_that_hold_give_status_0_a_table_a_page_and_the_figures(notebook, tmp_path, capsys):
    path = notebook("good", IDENTITY, HOLDS, NOT_REACHED, FIGURE, CONCLUDE)
    before = path.read_bytes()
    status, rows = run(tmp_path, path, seed=3)
    assert status == 0
    assert list(rows[0]) == list(reproduce.FIELDS)
    assert [row["outcome"] for row in rows] == ["holds", "holds", "not reached"]
    assert rows[1] == {
        "notebook": "good",
        "seed": "3",
        "claim": "SEED is small",
        "kind": "observation",
        "outcome": "holds",
        "predicted": "< 10",
        "measured": "3",
        "control": "False",
        "source": "derived here",
        "reason": "",
    }
    assert rows[2]["reason"] == "SEED is 3; expected from 100"
    page = (tmp_path / "build/html/good.html").read_text(encoding="utf-8")
    assert len(page) > 10_000
    assert "SEED is small" in page
    assert (tmp_path / "build/figures/good-1.png").read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in (tmp_path / "build").iterdir()} == {
        "claims.csv",
        "figures",
        "html",
        "verdicts.csv",
    }
    assert path.read_bytes() == before
    out = capsys.readouterr().out
    assert 0 <= int(re.search(r"^good \((\d+) s\)$", out, re.MULTILINE)[1]) < 600
    assert out.startswith("1 notebooks, 1 at a time\n")
    assert out.endswith(
        "  holds · identity · SEED is a number\n"
        "  holds · observation · SEED is small\n"
        "  not reached · observation · SEED is tiny\n"
        "3 claims: holds 1 identity, 1 observation; not reached 1 observation; "
        "0 notebooks failed\n"
    )


def test_several_seeds_have_a_folder_each_and_one_table(notebook, tmp_path, capsys):
    good, other = notebook("good", HOLDS, NOT_REACHED, CONCLUDE), notebook("other", IDENTITY)
    out = tmp_path / "build"
    status = reproduce.main([str(good), str(other), "--out", str(out), "--seeds", "3", "4", "50"])
    assert status == 1
    for seed in (3, 4, 50):
        assert (out / f"seed-{seed}" / "html" / "good.html").is_file()
    rows = pd.read_csv(out / "verdicts.csv")
    assert sorted(zip(rows.notebook, rows.seed, strict=True)) == sorted(
        [("good", seed) for seed in (3, 4, 50) for _ in range(2)]
        + [("other", seed) for seed in (3, 4, 50)]
    )
    claims = pd.read_csv(out / "claims.csv", keep_default_na=False).set_index("claim")
    assert list(claims.columns) == [
        *("notebook", "kind", "source", "control", "holds", "not_reached", "fails")
    ]
    assert list(claims.loc["SEED is small"]) == [
        *("good", "observation", "derived here", "False", 2, 0, 1)
    ]
    assert list(claims.loc["SEED is tiny", ["holds", "not_reached", "fails"]]) == [0, 3, 0]
    assert list(claims.loc["SEED is a number", ["control", "holds", "fails"]]) == ["none", 2, 1]
    printed = capsys.readouterr().out
    assert re.search(r"^good, seed 50 \(\d+ s\)\n  FAILS", printed, re.MULTILINE)


def test_a_folder_that_cannot_be_written_is_named(notebook, tmp_path, capsys):
    occupied = tmp_path / "file"
    occupied.touch()
    with pytest.raises(SystemExit):
        reproduce.main([str(notebook("good", HOLDS)), "--out", str(occupied)])
    assert "argument --out: expected a folder to write to, got" in capsys.readouterr().err


def test_a_claim_that_fails_an_error_and_a_silent_notebook_each_give_status_1_and_hide_no_other(
    notebook, tmp_path, capsys
):
    failing = notebook("failing", HOLDS, CONCLUDE)
    blunt = notebook("blunt", HOLDS.replace("10", "100").replace("False", "True"))
    broken = notebook("broken", "1 / 0")
    silent = notebook("silent", "1 + 1")
    good = notebook("good", HOLDS.replace("10", "100"), CONCLUDE)
    status, rows = run(tmp_path, failing, blunt, broken, silent, good, seed=50)
    out = capsys.readouterr().out
    assert status == 1
    assert {(row["notebook"], row["outcome"], row["control"]) for row in rows} == {
        ("failing", "FAILS", "False"),
        ("blunt", "FAILS", "True"),
        ("good", "holds", "False"),
    }
    assert len(rows) == 3
    assert out.count("  FAILS · observation · SEED is small\n") == 2
    assert "FAILS: ZeroDivisionError" in out
    assert "FAILS: the notebook makes no claim" in out
    assert "ClaimsFail" not in out  # the line of the claim says so
    found = "3 claims: holds 1 observation; FAILS 2 observation; 2 notebooks failed"
    assert out.splitlines()[-1] == found


@pytest.mark.parametrize(
    ("outcomes", "error", "expected"),
    [
        (["holds", "not reached"], "", 0),
        (["not reached"], "", 0),
        (["holds", "FAILS"], "", 1),
        (["holds"], "ValueError: no", 1),
        ([], "ValueError: no", 1),
        ([], "", 1),
    ],
)
def test_one_claim_that_fails_one_error_or_one_silence_is_enough_for_status_1(
    outcomes, error, expected, tmp_path, monkeypatch
):
    record = dict.fromkeys(reproduce.FIELDS[2:], "") | {"kind": "rate"}
    verdicts = [{**record, "outcome": outcome} for outcome in outcomes]
    of_notebook = {"one": (verdicts, error, 1.0), "good": ([record | {"outcome": "holds"}], "", 1)}
    monkeypatch.setattr(reproduce, "reproduce", lambda path, out, seed: of_notebook[path.stem])  # noqa: ARG005
    in_threads = lambda jobs, mp_context: ThreadPoolExecutor(jobs)  # noqa: ARG005, E731
    monkeypatch.setattr(reproduce, "ProcessPoolExecutor", in_threads)
    status, rows = run(tmp_path, "one.ipynb", "good.ipynb")
    assert status == expected
    assert len(rows) == len(outcomes) + 1


def test_no_other_process_can_take_the_port_of_a_kernel(notebook, tmp_path):
    transport = """
import json
from ipykernel.connect import get_connection_info
transport = json.loads(get_connection_info())["transport"]
claims.verdict("no port", kind="identity", predicted="ipc", measured=transport,
               holds=transport == "ipc", source="derived here")
"""
    status, rows = run(tmp_path, notebook("files", transport))
    assert status == 0, rows
    assert rows[0]["seed"] == ""


def test_the_module_is_run_by_its_name_and_says_what_it_takes(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["reproduce", "--help"])
    monkeypatch.delitem(sys.modules, "ntk_utils.lab.reproduce")
    with pytest.raises(SystemExit) as done:
        runpy.run_module("ntk_utils.lab.reproduce", run_name="__main__")
    assert done.value.code == 0
    out = capsys.readouterr().out
    for word in ("python -m ntk_utils.lab.reproduce", "--seeds", "--jobs", "--out"):
        assert word in out
