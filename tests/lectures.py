"""What nbval's kernel of a notebook runs besides its cells: all solutions, and figures for a talk.

The solutions run after the last cell, on the notebook's seed and on the two that follow. A cell
that shows figures runs once more behind itself, in the style of a talk, and its figures are looked
at. The kernel has measured everything by then: another one would need as long again.
"""

import collections
import re

from nbformat.v4 import new_code_cell
from nbval.plugin import IPyNbCell, IPyNbFile

SOLUTION = re.compile(r"<summary>Solution</summary>\s*```python\n(.*?)```", re.DOTALL)
SEEDS = 3

IN_A_TALK = """
import matplotlib.pyplot as _plt
_show = _plt.show

def _look():
    for figure in map(_plt.figure, _plt.get_fignums()):
        figure.canvas.draw()
        boxes = [ax.get_window_extent() for ax in figure.axes]
        share = sum(b.width * b.height for b in boxes) / (figure.bbox.width * figure.bbox.height)
        assert share >= 0.4, f"the axes fill {{share:.0%}} of the figure"
        legends = figure.legends + [ax.get_legend() for ax in figure.axes if ax.get_legend()]
        for legend in legends:
            extent = legend.get_window_extent(figure.canvas.get_renderer())
            assert not any(extent.overlaps(box) for box in boxes), "a legend covers the axes"
        assert figure.get_figwidth() >= 8.25, figure.get_figwidth()
    _plt.close("all")

_plt.show = _look
plotting.use_style("talk")
try:
{cell}
finally:
    _plt.show = _show
    plotting.use_style()
"""


def solutions(cells) -> list[str]:
    """The code of all solutions, in order."""
    return [code for cell in cells for code in SOLUTION.findall("".join(cell["source"]))]


def collect(file, of_nbval=IPyNbFile.collect):
    """Yield the cells of a notebook, as nbval does, and what is said above."""
    cells = []
    for cell in of_nbval(file):
        yield cell
        cells.append(cell)
        source = cell.cell.source
        if "plt.show()" in source:
            indented = "\n".join(f"    {line}" for line in source.splitlines())
            yield _item(file, f"{cell.name} in a talk", cell, IN_A_TALK.format(cell=indented))
    for i, code in enumerate(solutions(file.nb.cells), start=1):
        for more in range(SEEDS):
            source = f"SEED += {more}\n{code}\nSEED -= {more}"
            yield _item(file, f"Solution {i}, seed + {more}", cells[-1], source)


def _item(file, name, after, source):
    return IPyNbCell.from_parent(
        file,
        name=name,
        cell_num=after.cell_num,
        cell=new_code_cell(source),
        options=collections.defaultdict(bool),
    )
