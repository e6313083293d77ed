import itertools
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ntk_utils.lab import stored

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
FIGURE = new_output("display_data", {"image/png": "", "text/plain": "<Figure>"})
TABLE = new_output("execute_result", {"text/html": "", "text/plain": ""}, execution_count=1)
VIEW = new_output(
    "display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "IntSlider()"}
)


def code(source, *outputs, **metadata):
    return new_code_cell(source, outputs=list(outputs), metadata=metadata, execution_count=1)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_is_as_it_is_stored(path):
    text = path.read_text(encoding="utf-8")
    assert nbformat.writes(stored.tidied(nbformat.reads(text, as_version=4))) + "\n" == text


def test_what_jupyterlab_adds_on_saving_is_taken_out_and_nothing_else(tmp_path, capsys):
    figure = code("plot()", FIGURE, tags=["parameters"], mystnb={"image": {"alt": "a line"}})
    notebook = stored.tidied(new_notebook(cells=[figure, code("slider", VIEW), code("1", TABLE)]))
    clean = nbformat.writes(notebook) + "\n"
    path = tmp_path / "saved.ipynb"

    notebook.metadata.language_info.version = "3.13.9"
    notebook.metadata.kernelspec.display_name = "Python 3 (ipykernel)"
    notebook.metadata.widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    notebook.cells[0].metadata |= {"execution": {"iopub.execute_input": "now"}, "trusted": True}
    notebook.cells[1].outputs = [VIEW]
    nbformat.write(notebook, path)
    assert path.read_text(encoding="utf-8") != clean

    assert stored.main([str(path)]) == 0
    assert path.read_text(encoding="utf-8") == clean
    assert capsys.readouterr().out == f"tidied {path}\n"
    assert stored.main([str(path)]) == 0
    assert capsys.readouterr().out == ""

    kept = nbformat.read(path, as_version=4)
    assert kept.cells[0].metadata.tags == ["parameters"]
    assert kept.cells[0].metadata.mystnb.image.alt == "a line"
    assert kept.cells[0].outputs == [FIGURE]
    assert kept.cells[1].outputs == []


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (new_markdown_cell("# Title\n\nprose"), "slide"),
        (new_markdown_cell("## Part\n\n> **Theorem.** It holds."), "slide"),
        (new_markdown_cell("## Parameters"), "skip"),
        (new_markdown_cell("prose\n\n> **Theorem.** It holds."), "subslide"),
        (new_markdown_cell("prose, a > b"), "notes"),
        (new_markdown_cell("**1 (easy).** Do it."), "subslide"),
        (
            new_markdown_cell("<details><summary>Hint</summary>\n\n> **1 (easy)**\n</details>"),
            "skip",
        ),
        (new_markdown_cell("## Further reading\n\n- this"), "skip"),
        (code("import jax"), "skip"),
        (code("plot()", FIGURE), "subslide"),
        (code("table", TABLE), "subslide"),
        (code("widget", tags=["nbval-ignore-output"]), "subslide"),
        (code("claims.verdict(\n    holds=True)", TABLE), ""),
        (code("claims.conclude()", TABLE), "slide"),
        (code("1 + 1", new_output("execute_result", {"text/plain": "2"})), "skip"),
    ],
)
def test_a_slide_holds_a_heading_a_statement_a_figure_or_an_exercise(cell, expected):
    assert stored.slide_type(cell) == expected


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_verdict_stands_on_the_slide_of_what_it_judges(path):
    types = [stored.slide_type(cell) for cell in nbformat.read(path, 4).cells]
    shown = [kind for kind in types if kind not in ("skip", "notes")]
    before = [a for a, b in itertools.pairwise(shown) if b == ""]
    assert before
    assert set(before) <= {"subslide", ""}
