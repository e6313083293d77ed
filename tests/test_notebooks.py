import json
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from ntk_utils.lab.reproduce import figures

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

for_each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind):
    return [
        cell
        for cell in all_cells(path)
        if cell["cell_type"] == kind and "".join(cell["source"]).strip()
    ]


def source(cell):
    return "".join(cell["source"])


def all_cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def judges(cell):
    return cell["cell_type"] == "code" and "claims.verdict(" in source(cell)


def verdicts(path):
    """The first line of each: outcome · kind · claim."""
    return [
        "".join(output["data"]["text/plain"]).splitlines()[0]
        for cell in cells(path, "code")
        if judges(cell)
        for output in cell["outputs"]
    ]


def shows(cell):
    """Whether a figure or a table is among the outputs."""
    kinds = {kind for output in cell.get("outputs", []) for kind in output.get("data", {})}
    return bool(kinds & {"image/png", "text/html"})


def parts(cell):
    """What of an exercise stands in a cell: its text, the stub, a hint, a solution."""
    text = source(cell)
    if cell["cell_type"] == "code":
        return ["stub"] if text.strip() == "# Write your code here." else []
    return (
        ["E"] * len(re.findall(r"^\*\*\d \((?:easy|standard|research)\)", text, re.MULTILINE))
        + ["H"] * text.count("<summary>Hint</summary>")
        + ["S"] * text.count("<summary>Solution</summary>")
    )


def tags(cell):
    return cell["metadata"].get("tags", [])


@for_each_notebook
def test_stored_counts_are_those_of_restart_and_run_all(path):
    counts = [cell["execution_count"] for cell in cells(path, "code")]
    assert counts == list(range(1, len(counts) + 1))


@for_each_notebook
def test_no_stored_output_is_an_error_or_on_stderr(path):
    outputs = [output for cell in cells(path, "code") for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]


@for_each_notebook
def test_exactly_one_cell_holds_the_parameters_and_names_the_seed(path):
    (parameters,) = [cell for cell in cells(path, "code") if "parameters" in tags(cell)]
    assert "SEED = " in source(parameters)


@for_each_notebook
def test_whatever_a_reader_may_change_stands_in_the_parameters_cell(path):
    others = [cell for cell in cells(path, "code") if "parameters" not in tags(cell)]
    constants = [re.findall(r"^[A-Z][A-Z_0-9]* = ", source(cell), re.MULTILINE) for cell in others]
    assert not any(constants)


@for_each_notebook
def test_no_output_is_kept_from_nbval(path):
    marked = [tag for cell in cells(path, "code") for tag in tags(cell) if tag.startswith("nbval")]
    comments = [cell for cell in cells(path, "code") if "NBVAL_" in source(cell)]
    # output widgets cannot be compared: the explorer alone may ignore outputs
    assert not comments
    assert not marked or path.stem.startswith("15")


@for_each_notebook
def test_the_last_cell_concludes_the_claims(path):
    assert source(all_cells(path)[-1]).strip() == "claims.conclude()"


@for_each_notebook
def test_every_verdict_stands_at_most_two_cells_below_the_figure_or_table_that_it_judges(path):
    cells = all_cells(path)
    judging = [i for i, cell in enumerate(cells) if judges(cell)]
    showing = [i for i, cell in enumerate(cells) if shows(cell) and not judges(cell)]
    assert judging
    far = [i for i in judging if not any(i - 2 <= shown < i for shown in showing)]
    assert [source(cells[i]) for i in far] == []


@for_each_notebook
def test_every_claim_is_judged_once(path):
    claims = verdicts(path)
    assert len(set(claims)) == len(claims)


@for_each_notebook
def test_the_table_of_ten_seeds_has_the_claims_that_the_notebook_makes(path):
    table = pd.read_csv(ROOT / "notebooks" / "data" / "verdicts.csv")
    of_notebook = table[table.notebook == path.stem]
    claims = [verdict.split(" · ", 2)[2] for verdict in verdicts(path)]
    assert sorted(claims) == sorted(of_notebook.claim)
    assert (of_notebook.holds + of_notebook.not_reached == 10).all()
    assert set(of_notebook.control) <= {"False", "none"}


@for_each_notebook
def test_no_cell_is_longer_than_20_lines_and_the_code_than_190(path):
    _, *lengths = [
        sum(bool(line.strip()) for line in source(cell).splitlines())
        for cell in cells(path, "code")
    ]  # the first one imports
    assert max(lengths) <= 20
    # 03 reproduces the published figure, 07 proves a case, 08 and 09 have two theorems each, 11
    # to 13 a limit object to compute beside the network, 14 three methods on three kinds of data
    longer = {"00": 80, "03": 230, "08": 220, "09": 220, "10": 200, "11": 230, "12": 260, "13": 240}
    longer |= {"07": 200, "14": 300}
    assert sum(lengths) <= longer.get(path.stem[:2], 190)


@for_each_notebook
def test_no_progress_bar_is_stored(path):
    outputs = [output for cell in cells(path, "code") for output in cell["outputs"]]
    assert not [output for output in outputs if "0%|" in json.dumps(output)]


@for_each_notebook
def test_every_figure_says_in_words_what_it_shows(path):
    texts = [
        cell["metadata"]["mystnb"]["image"]["alt"]
        for cell in cells(path, "code")
        if any("image/png" in output.get("data", {}) for output in cell["outputs"])
    ]
    assert [text for text in texts if not 80 <= len(text) <= 300] == []
    assert len(set(texts)) == len(texts) > 0


@for_each_notebook
def test_figures_have_the_size_and_the_legend_of_the_style(path):
    code = "\n".join(source(cell) for cell in cells(path, "code"))
    assert "figsize" not in code
    assert not re.findall(r"\w+(?<!plotting)\.legend\(", code)


@for_each_notebook
def test_nothing_is_installed_downloaded_silenced_or_reached_behind_the_package(path):
    forbidden = (
        "!pip",
        "%pip",
        "sys.path",
        "import *",
        "warnings.filter",
        "warnings.simplefilter",
        "urllib",
        "requests",
        "nt._src",
        "import neural_tangents",
        "time.time",
        "np.random.seed",
    )
    text = "\n".join(source(cell) for cell in cells(path, "code"))
    assert [word for word in forbidden if word in text] == []


@for_each_notebook
def test_no_line_ends_in_a_semicolon(path):
    lines = "\n".join(source(cell) for cell in cells(path, "code")).splitlines()
    assert [line for line in lines if line.rstrip().endswith(";")] == []


@for_each_notebook
def test_prose_outweighs_code_and_the_file_stays_small(path):
    words = sum(len(source(cell).split()) for cell in cells(path, "markdown"))
    lines = sum(len(source(cell).splitlines()) for cell in cells(path, "code"))
    assert words >= 4 * lines
    assert path.stat().st_size <= 1_000_000


@for_each_notebook
def test_every_exercise_is_followed_by_a_stub_then_its_hint_and_solution(path):
    kinds = ["".join(parts(cell)) for cell in all_cells(path)]
    exercises = [i for i, kind in enumerate(kinds) if "E" in kind]
    assert len(exercises) <= 4
    assert path.stem.startswith("00") or len(exercises) >= 2
    assert all(kinds[i : i + 3] == ["E", "stub", "HS"] for i in exercises)
    assert sum(kind != "" for kind in kinds) == 3 * len(exercises)


@for_each_notebook
def test_the_readme_lists_the_notebook(path):
    assert f"notebooks/{path.name}" in (ROOT / "README.md").read_text(encoding="utf-8")


@for_each_notebook
def test_the_start_page_links_the_notebook(path):
    start = ROOT / "notebooks" / "00-start-here.ipynb"
    assert path == start or path.name in start.read_text(encoding="utf-8")


def test_the_picture_of_the_readme_is_the_first_figure_of_the_start_page():
    notebook = nbformat.read(ROOT / "notebooks" / "00-start-here.ipynb", as_version=4)
    picture = ROOT / "notebooks" / "data" / "overview.png"
    assert picture.read_bytes() == figures(notebook)[0]
    assert "notebooks/data/overview.png" in (ROOT / "README.md").read_text(encoding="utf-8")
