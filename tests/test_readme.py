"""The lines of the README, and of the page on neural-tangents, do what these say, as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def blocks_of(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


BLOCKS = blocks_of("README.md")
RUN = [block for block in BLOCKS if "dask_jobqueue" not in block]  # it would need a cluster
CHECK = "assert len(k.sharding.device_set) == jax.device_count() == {}\n"


@pytest.mark.parametrize(("n_devices", "blocks"), [(1, RUN), (8, [RUN[0], RUN[-1]])])
def test_the_python_blocks_run_one_after_the_other(n_devices, blocks, tmp_path):
    assert len(RUN) == len(BLOCKS) - 1 == 4
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n3,5\n8,1\n")
    flags = f"--xla_force_host_platform_device_count={n_devices}"
    run([*blocks, CHECK.format(n_devices)], tmp_path, XLA_FLAGS=flags)


# what a PyTorch model of two layers would give
STATE = """
import numpy as np
state = {"0.weight": np.ones((4, 3)), "0.bias": np.ones(4)}
state |= {"2.weight": np.ones((1, 4)), "2.bias": np.zeros(1)}
"""


def test_the_recipes_for_users_of_neural_tangents_run_one_after_the_other(tmp_path):
    blocks = blocks_of("book/neural-tangents.md")
    assert len(blocks) == 7
    run([STATE, *blocks], tmp_path)


def run(blocks, folder, **environment):
    subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "MPLBACKEND": "agg", **environment},
        cwd=folder,
        check=True,
        timeout=300,
    )
