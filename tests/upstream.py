"""neural-tangents' own tests, through `ntk_utils.compat`: pass and fail, file by file.

    make neural-tangents-suite NEURAL_TANGENTS=<a checkout of neural-tangents, v0.6.5>

About an hour on two cores. Nothing is downloaded; a file that needs what is not installed says so.
"""

import argparse
import collections
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# the suite draws the numbers, and expects the precision, of JAX's old defaults
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "JAX_THREEFRY_PARTITIONABLE": "0"}
RUN = """
import sys
import jax, pytest
from ntk_utils import compat
from ntk_utils.compat import neural_tangents
jax.config.update("jax_enable_x64", False)
jax.tree_map = jax.tree.map  # some of the tests ask for names that JAX dropped, as the library did
with compat._names_put_back():
    sys.exit(pytest.main(sys.argv[1:]))
"""
OPTIONS = ["-v", "--override-ini=addopts=", "-p", "no:cacheprovider", "-p", "no:warnings"]
OUTCOME = re.compile(r"^\S+::.* (PASSED|FAILED|ERROR|SKIPPED)", re.MULTILINE)
SUBTEST = re.compile(r"^SUB(FAILED)", re.MULTILINE)  # in the summary: its test may count as passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="folder of neural-tangents, at v0.6.5")
    parser.add_argument("files", nargs="*", help="of its tests, such as stax/stax_test.py (all)")
    parser.add_argument("--minutes", type=float, default=30, help="for one file (30)")
    arguments = parser.parse_args()
    tests = arguments.checkout / "tests"
    if not tests.is_dir():
        parser.error(f"checkout: expected a folder that contains tests/, got {arguments.checkout}")
    files = arguments.files or sorted(
        str(path.relative_to(tests))
        for path in tests.rglob("*_test.py")
        if "experimental" not in path.parts  # of TensorFlow
    )
    print(f"{'file':36s} passed failed error skipped")
    for file in files:
        counts, end = outcomes(arguments.checkout, file, arguments.minutes)
        numbers = " ".join(
            f"{counts[name]:6d}" for name in ("PASSED", "FAILED", "ERROR", "SKIPPED")
        )
        print(f"{file:36s} {numbers}  {end}", flush=True)


def outcomes(checkout: Path, file: str, minutes: float) -> tuple[collections.Counter, str]:
    """How many tests of a file, or parts of one that failed, ended how, and why it ended early."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        end = ""
        try:
            subprocess.run(
                [sys.executable, "-c", RUN, *OPTIONS, f"tests/{file}"],
                cwd=checkout,
                env=os.environ | ENVIRONMENT,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=60 * minutes,
                check=False,
            )
        except subprocess.TimeoutExpired:
            end = f"stopped after {minutes:g} minutes"
        log.seek(0)
        text = log.read()
    if missing := re.search(r"ModuleNotFoundError: .*", text):
        end = missing[0]
    return collections.Counter(OUTCOME.findall(text) + SUBTEST.findall(text)), end


if __name__ == "__main__":
    main()
