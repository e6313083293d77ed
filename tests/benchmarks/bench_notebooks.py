"""Each notebook, executed: how long it takes, and for how much of that it waits for compilers."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from ntk_utils.lab._jupyter import AsyncFileKernelManager

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

# The events of a compilation (tracing, lowering, XLA) may contain each other: take their union.
LISTEN = """
import time
from jax import monitoring
_events = []
def _keep(event, seconds, **_):
    if event.startswith("/jax/core/compile/"):
        _events.append((time.perf_counter() - seconds, time.perf_counter()))
monitoring.register_event_duration_secs_listener(_keep)
"""
TOTAL = """
_total, _until = 0, 0
for _start, _end in sorted(_events):
    _total, _until = _total + max(0, _end - max(_start, _until)), max(_until, _end)
print("compiling:", _total)
"""
IMPORT = """
import time
_start = time.perf_counter()
{}
print("import:", time.perf_counter() - _start)
"""


def printed(notebook, word):
    lines = [
        line
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for line in output.get("text", "").splitlines()
    ]
    return next(float(line.split()[1]) for line in lines if line.startswith(word))


@pytest.fixture(scope="module")
def start_ups():
    return []


@pytest.fixture(scope="module")
def spent():
    """Of each notebook, the seconds that it took and those of them that went into compilers."""
    return []


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem[:2])
def test_notebook(path, benchmark, report, start_ups, spent):
    notebook = nbformat.read(path, as_version=4)
    imports = next(cell for cell in notebook.cells if cell.cell_type == "code")
    imports.source = IMPORT.format(imports.source)
    new_cell = nbformat.v4.new_code_cell
    notebook.cells = [*notebook.cells, new_cell(TOTAL)]
    notebook.cells.insert(notebook.cells.index(imports) + 1, new_cell(LISTEN))
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        kernel_manager_class=AsyncFileKernelManager,
        resources={"metadata": {"path": NOTEBOOKS}},
    )
    benchmark.pedantic(client.execute, rounds=1)
    seconds = benchmark.stats.stats.min
    spent.append((seconds, printed(notebook, "compiling:")))
    report(f"{path.stem}, s", f"{seconds:.1f}")
    report("  share of it spent compiling", f"{spent[-1][1] / seconds:.0%}")
    start_ups.append(printed(notebook, "import:"))


def test_share_of_the_collection_spent_compiling(report, spent):
    if not spent:
        pytest.skip("no notebook was selected")
    seconds, compiling = map(sum, zip(*spent, strict=True))
    report("all notebooks, s", f"{seconds:.0f}")
    share = compiling / seconds
    report("share of it spent compiling", f"{share:.0%}", "<= 20%", share <= 0.2)


def test_start_up(report, start_ups):
    if not start_ups:
        pytest.skip("no notebook was selected")
    fastest = min(start_ups)  # noise only adds time
    report("imports of a notebook, s", f"{fastest:.2f}", "<= 1.7", fastest <= 1.7)
