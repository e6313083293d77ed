import subprocess
import sys

import jax
import pytest

ROWS = []

# not resource.getrusage, which starts a child at the peak of its parent
PEAK_MEMORY = """
from pathlib import Path
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20)
"""


@pytest.fixture
def report():
    """Print a figure, beside its target if it has one; all of them again at the end of the run."""

    def keep(figure, value, target="", met=True):
        verdict = "met" if met else "MISSED"
        ROWS.append((figure, value, target, verdict if target else ""))
        print("", *ROWS[-1], sep="  ", flush=True)  # a run that is stopped has lost nothing

    return keep


@pytest.fixture
def in_a_new_process():
    """Run code in a process of its own and return the numbers that it prints."""

    def run(code):
        printed = subprocess.check_output([sys.executable, "-c", code], text=True)
        return [float(number) for number in printed.split()]

    return run


@pytest.fixture
def peak_memory(in_a_new_process):
    """Run code in a process of its own; return the numbers that it prints, then the GB it took."""
    return lambda code: in_a_new_process(code + PEAK_MEMORY)


def pytest_terminal_summary(terminalreporter):
    if ROWS:
        terminalreporter.section("figures and targets")
        device = jax.devices()[0]
        terminalreporter.write_line(
            f"JAX {jax.__version__} on {device.platform}: {device.device_kind}"
        )
        width = max(len(row[0]) for row in ROWS)
        for figure, value, target, met in ROWS:
            terminalreporter.write_line(f"{figure:<{width}}  {value:>12}  {target:>12}  {met}")
