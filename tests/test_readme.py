"""The README's lines do what it says, as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
RUN = [block for block in BLOCKS if "dask_jobqueue" not in block]  # it would need a cluster
CHECK = "assert len(k.sharding.device_set) == jax.device_count() == {}\n"


@pytest.mark.parametrize(("n_devices", "blocks"), [(1, RUN), (8, [RUN[0], RUN[-1]])])
def test_the_python_blocks_run_one_after_the_other(n_devices, blocks, tmp_path):
    assert len(RUN) == len(BLOCKS) - 1 == 4
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n3,5\n8,1\n")
    flags = f"--xla_force_host_platform_device_count={n_devices}"
    subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join([*blocks, CHECK.format(n_devices)])],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "MPLBACKEND": "agg", "XLA_FLAGS": flags},
        cwd=tmp_path,
        check=True,
        timeout=300,
    )
