import csv
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from ntk_utils import reproduce

# papermill's and Jupyter's own code warns of changes to come
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

HOLDS = 'verdicts = [verdict("SEED is small", predicted="< 10", measured=SEED, holds=SEED < 10)]'
FIGURE = "import matplotlib.pyplot as plt; fig, ax = plt.subplots(figsize=(1, 1)); plt.show()"


@pytest.fixture
def notebook(tmp_path):
    def write(name, *cells):
        first = new_code_cell("from ntk_utils import verdict")
        parameters = new_code_cell("SEED = 0", metadata={"tags": ["parameters"]})
        path = tmp_path / f"{name}.ipynb"
        rest = [new_code_cell(cell) for cell in cells]
        metadata = {"language_info": {"name": "python"}}
        nbformat.write(new_notebook(cells=[first, parameters, *rest], metadata=metadata), path)
        return path

    return write


def run(tmp_path, *paths, seed=None):
    options = ["--out", str(tmp_path / "build")] + (["--seed", str(seed)] if seed else [])
    status = reproduce.main([*map(str, paths), *options])
    with open(tmp_path / "build" / "verdicts.csv", newline="", encoding="utf-8") as file:
        return status, list(csv.DictReader(file))


def test_claims_that_hold_give_status_0_a_table_a_page_and_the_figures(notebook, tmp_path, capsys):
    path = notebook("good", HOLDS, FIGURE)
    status, rows = run(tmp_path, path, seed=3)
    assert status == 0
    assert [(row["notebook"], row["measured"], row["holds"]) for row in rows] == [
        ("good", "3", "True")
    ]
    assert (tmp_path / "build/html/good.html").stat().st_size > 10_000
    assert (tmp_path / "build/figures/good-1.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "holds: SEED is small" in out
    assert 0 < int(re.search(r"^good \((\d+) s\)$", out, re.MULTILINE)[1]) < 600
    assert "1 of 1 claims hold" not in path.read_text()


def test_a_claim_that_fails_an_error_and_a_silent_notebook_each_give_status_1_and_hide_no_other(
    notebook, tmp_path, capsys
):
    failing = notebook("failing", HOLDS + "\nassert all(verdicts)", HOLDS)
    broken = notebook("broken", "1 / 0")
    silent = notebook("silent", "1 + 1")
    good = notebook("good", HOLDS.replace("10", "100"))
    status, rows = run(tmp_path, failing, broken, silent, good, seed=50)
    out = capsys.readouterr().out
    assert status == 1
    assert {(row["notebook"], row["holds"]) for row in rows} == {
        ("failing", "False"),
        ("good", "True"),
    }
    assert len(rows) == 2
    assert "FAILS: ZeroDivisionError" in out
    assert "FAILS: the notebook makes no claim" in out
    assert "1 of 2 claims hold; 3 notebooks failed" in out


def test_no_other_process_can_take_the_port_of_a_kernel(notebook, tmp_path):
    transport = """
import json
from ipykernel.connect import get_connection_info
transport = json.loads(get_connection_info())["transport"]
verdicts = [verdict("no port", predicted="ipc", measured=transport, holds=transport == "ipc")]
"""
    status, rows = run(tmp_path, notebook("files", transport))
    assert status == 0, rows
