"""Every notebook once more, as a lecturer runs it: in the style of a talk, with all solutions.

One kernel executes the code cells of a notebook in order. In place of each stub stands the solution
that the notebook gives below it, run on the notebook's seed and on the two that follow.
"""

import functools
import json
import re
import textwrap
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from ntk_utils.lab._jupyter import AsyncFileKernelManager

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
STUB = "# Write your code here."
SOLUTION = re.compile(r"<summary>Solution</summary>\s*```python\n(.*?)```", re.DOTALL)
FOR_THREE_SEEDS = """
_seed = SEED
for SEED in (_seed, _seed + 1, _seed + 2):
{solution}
SEED = _seed
"""
LOOK_AT_FIGURES = """
import json
import matplotlib.pyplot as plt
_figures, _show = [], plt.show
def _look_and_show():
    for figure in map(plt.figure, plt.get_fignums()):
        figure.canvas.draw()
        renderer = figure.canvas.get_renderer()
        boxes = [ax.get_window_extent() for ax in figure.axes]
        legends = figure.legends + [ax.get_legend() for ax in figure.axes if ax.get_legend()]
        covered = [
            legend for legend in legends
            for box in boxes if legend.get_window_extent(renderer).overlaps(box)
        ]
        area = figure.bbox.width * figure.bbox.height
        share = sum(box.width * box.height for box in boxes) / area
        _figures.append({"share": share, "width": figure.get_figwidth(), "covered": len(covered)})
    _show()
plt.show = _look_and_show
"""

for_each_notebook = pytest.mark.parametrize(
    "path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem
)


def solutions(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [code for cell in cells for code in SOLUTION.findall("".join(cell["source"]))]


@functools.cache
def figures_of_a_lecture(path):
    """Execute the notebook as described above, and return what its figures look like."""
    notebook = nbformat.read(path, as_version=4)
    stubs = [cell for cell in notebook.cells if cell.source.strip() == STUB]
    for stub, code in zip(stubs, solutions(path), strict=True):
        stub.source = FOR_THREE_SEEDS.format(solution=textwrap.indent(code, "    "))
    for cell in notebook.cells:
        cell.source = cell.source.replace("plotting.use_style()", 'plotting.use_style("talk")')
    report = new_code_cell("print(json.dumps(_figures))")
    notebook.cells = [new_code_cell(LOOK_AT_FIGURES), *notebook.cells, report]
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        kernel_manager_class=AsyncFileKernelManager,
        resources={"metadata": {"path": NOTEBOOKS}},
    )
    client.execute()
    return json.loads(report.outputs[0].text)


@for_each_notebook
def test_every_solution_asserts_what_its_text_says(path):
    for code in solutions(path):
        assert re.search(r"^ *assert ", code, re.MULTILINE), code


@for_each_notebook
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own code
def test_every_solution_runs_on_three_seeds(path, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    figures_of_a_lecture(path)


@for_each_notebook
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_in_a_talk_the_axes_fill_most_of_every_figure_and_no_legend_covers_them(path):
    figures = figures_of_a_lecture(path)
    assert figures
    assert [f for f in figures if f["share"] < 0.4 or f["covered"] or f["width"] < 8.25] == []
