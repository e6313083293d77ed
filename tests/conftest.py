import collections
import itertools
import os

import jax
import jaxtyping
import lectures
import nbval.kernel
import nbval.plugin
import pytest
from helpers import CHROMIUM

import ntk_utils  # noqa: F401  (switches JAX's 64-bit mode on)
from ntk_utils.lab._jupyter import FileKernelManager

collect_ignore_glob = ["*conftest.py"]  # doctest takes them for modules, two of one name
# nbval offers no option for it; two workers would start kernels on ports that may collide
nbval.kernel.KernelManager = FileKernelManager
nbval.plugin.IPyNbFile.collect = lectures.collect
os.environ["TQDM_DISABLE"] = "1"  # in its kernels, as when the outputs were stored
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(params=[0, 1, 2])
def key(request):
    return jax.random.key(request.param)


@pytest.fixture
def without_type_checks(monkeypatch):
    """As users call it: outside of these tests the type hints are not checked."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def pytest_collection_modifyitems(items):
    if os.environ.get("CI"):
        return
    skip = pytest.mark.skip(reason="slow: runs where CI=true")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)


def pytest_terminal_summary(terminalreporter):
    """Print how long each notebook took, the start of its kernel included; and what was skipped."""
    if not CHROMIUM:
        terminalreporter.write_line("tests/browser was skipped: no chromium on the PATH")
    seconds = collections.Counter()
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        path = getattr(report, "nodeid", "").partition("::")[0]
        if path.endswith(".ipynb"):
            seconds[path] += getattr(report, "duration", 0.0)
    if seconds:
        terminalreporter.section("notebooks, seconds")
        for path, total in sorted(seconds.items()):
            terminalreporter.write_line(f"{total:6.1f}  {path}")
