"""Solutions say in an assertion what their text says; `lectures` runs them, in nbval's kernel."""

import json
import re
from pathlib import Path

import lectures
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
STUB = "# Write your code here."


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_exercise_has_a_solution_that_asserts_what_its_text_says(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    stubs = ["".join(cell["source"]).strip() for cell in cells].count(STUB)
    solutions = lectures.solutions(cells)
    assert len(solutions) == stubs
    for code in solutions:
        assert re.search(r"^ *assert ", code, re.MULTILINE), code
