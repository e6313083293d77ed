import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PYTHONS = ["3.11", "3.12", "3.13"]


def locked(python):
    """The versions that the lock gives a Linux machine with this Python."""
    environment = default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
    }
    lines = [line.rstrip(" \\") for line in LOCK.splitlines() if line[:1].isalnum()]
    requirements = [Requirement(line) for line in lines]
    return {
        requirement.name: str(requirement.specifier).removeprefix("==")
        for requirement in requirements
        if not requirement.marker or requirement.marker.evaluate(environment)
    }


def conda(part="dependencies"):
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))[part]


def pip_section():
    (section,) = [entry["pip"] for entry in conda() if isinstance(entry, dict)]
    return section


def declared(extra=""):
    """The project's own requirements, with those of an extra."""
    lines = list(PROJECT["dependencies"])
    for line in PROJECT["optional-dependencies"].get(extra, []):
        requirement = Requirement(line)
        if requirement.name == PROJECT["name"]:
            lines += [text for name in requirement.extras for text in declared(name)]
        else:
            lines.append(line)
    return lines


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_satisfies_every_requirement_of_the_project(python):
    versions = locked(python)
    for requirement in map(Requirement, declared("dev")):
        assert requirement.specifier.contains(versions[requirement.name]), requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_leaves_tensorflow_and_tf2jax_out(python):
    versions = locked(python)
    assert "neural-tangents" in versions
    assert not {"tensorflow", "tf2jax", "tensorflow-cpu", "keras"} & versions.keys()


def test_the_lock_names_hashes_and_no_address():
    assert LOCK.count("--hash=sha256:") > len(locked("3.12"))
    assert "://" not in LOCK
    assert "index-url" not in LOCK


def test_the_conda_entry_pins_what_the_lock_pins():
    (python,) = [e.removeprefix("python=") for e in conda() if str(e).startswith("python=")]
    versions = locked(python)
    pins = [Requirement(line) for line in pip_section() if not line.startswith("-e")]
    assert {pin.name for pin in pins} == {"jax", "jaxlib", "neural-tangents"}
    for pin in pins:
        assert str(pin.specifier) == f"=={versions[pin.name]}"
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.0")


def test_the_conda_entry_installs_the_project_with_an_extra_that_has_jupyterlab_and_nbval():
    (editable,) = [line for line in pip_section() if line.startswith("-e")]
    extra = editable.removeprefix("-e .[").removesuffix("]")
    names = {Requirement(line).name for line in declared(extra)}
    fixed = {"jax", "neural-tangents", "numpy", "matplotlib", "seaborn", "jupyterlab", "nbval"}
    assert fixed <= names


def test_the_conda_entry_and_make_set_what_the_package_sets_before_numpy_can_be_imported():
    made = re.search(r"export (\w+) \?= (\w+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    (variable,) = conda("variables").items()
    assert made.groups() == variable
    code = f"import ntk_utils, os; print(os.environ[{variable[0]!r}])"
    for chosen, expected in [({}, variable[1]), ({variable[0]: "26"}, "26")]:
        others = {name: value for name, value in os.environ.items() if name != variable[0]}
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=others | chosen,
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.split() == [expected]


def test_ci_runs_the_same_script_on_every_supported_python():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    assert job["strategy"]["matrix"]["python-version"] == PYTHONS
    assert any(step.get("run") == "bash .ci/run" for step in job["steps"])
    assert "make test" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    classifiers = [c for c in PROJECT["classifiers"] if "Python :: 3." in c]
    assert [c.rsplit(" ", 1)[1] for c in classifiers] == PYTHONS


@pytest.mark.slow
def test_pip_can_install_the_conda_entry_and_the_package_then_imports(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path], check=True)
    python = tmp_path / "bin" / "python"
    tag = f"{sys.version_info.major}.{sys.version_info.minor}"
    versions = locked(tag)
    # the entry pins JAX for its own Python; here it is installed for the Python of this run
    lines = [
        f"{Requirement(line).name}=={versions[Requirement(line).name]}"
        for line in pip_section()
        if not line.startswith("-e")
    ]
    requirements = tmp_path / "requirements.txt"
    editable = next(line for line in pip_section() if line.startswith("-e"))
    requirements.write_text("\n".join([*lines, editable]), encoding="utf-8")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--requirement", requirements],
        check=True,
        cwd=ROOT,
    )
    code = "import ntk_utils as n; print(n.limiting_ntk([[3.0, 4.0]], depth=3)[0, 0])"
    result = subprocess.run(
        [python, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert float(result.stdout) == pytest.approx(75)
