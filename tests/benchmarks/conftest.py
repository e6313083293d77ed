import pytest

ROWS = []


@pytest.fixture
def report():
    """Keep a figure beside its target, for the table at the end of the run."""

    def keep(figure, value, target, met):
        ROWS.append((figure, value, target, "met" if met else "MISSED"))

    return keep


def pytest_terminal_summary(terminalreporter):
    if ROWS:
        terminalreporter.section("figures and targets")
        width = max(len(row[0]) for row in ROWS)
        for figure, value, target, met in ROWS:
            terminalreporter.write_line(f"{figure:<{width}}  {value:>12}  {target:>12}  {met}")
