"""What may import what, where each module is tested, and that no public name is lost."""

import ast
import itertools
import subprocess
import sys
from pathlib import Path

import jax
import jaxtyping
import numpy as np
import pytest

import ntk_utils

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ntk_utils"

# an import only ever points left; what a room shares with its neighbours stands left of both
ROOMS = [
    "_checks",
    "_progress",
    "_random",
    "_scale",
    "compat",
    "data",
    "activations",
    "networks",
    "kernels",
    "operators",
    "spectra",
    "bounds.hermite",
    "bounds.limiting",
    "bounds.empirical",
    "bounds.features",
    "bounds.lipschitz",
    "bounds.convergence",
    "bounds.verified",
    "training",
    "report",
    "figure2",
    "bombari22",
    "mean_field.dropout",
    "mean_field.three_layers",
    "mean_field.bumps",
    "mean_field.implicit_bias",
    "quantization._codec",
    "quantization.messages",
    "quantization.problems",
    "quantization.optimizers",
    "explorer",
]
# the laboratory knows no mathematics of NTKs: of the package it imports what is on the right, and
# of itself only what stands left
LAB = [
    "_checks",
    "_progress",
    "lab._jupyter",
    "lab._fingerprint",
    "lab._store",
    "lab.sweep",
    "lab.exponents",
    "lab.claims",
    "lab.tables",
    "lab.plotting",
    "lab.live",
    "lab.stored",
    "lab.reproduce",
]
WITH_A_LABORATORY = {"bombari22", "explorer", "figure2", "report"}
"""Rooms of mathematics that may import the laboratory."""


def name_of(path):
    """bounds.hermite for ntk_utils/bounds/hermite.py, bounds for its __init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


SOURCES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
PACKAGES = {name for name, path in SOURCES.items() if path.name == "__init__.py"}
MODULES = sorted(SOURCES.keys() - PACKAGES)


def imports(name):
    """What a module imports of the package, and whether when it is imported itself."""
    tree = ast.parse(SOURCES[name].read_text(encoding="utf-8"))
    inside_functions = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    found = {}
    for node in ast.walk(tree):
        for target in _targets(node, name):
            at_once = id(node) not in inside_functions
            found[target] = found.get(target, False) or at_once
    return found


def _targets(node, name):
    """The modules of the package that one statement imports; "" for the package itself."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.partition(".")[0] == "ntk_utils":
                yield alias.name.removeprefix("ntk_utils").lstrip(".")
    elif isinstance(node, ast.ImportFrom):
        if node.level:
            package = name.split(".") if name in PACKAGES else name.split(".")[:-1]
            above = package[: len(package) - node.level + 1]
            module = ".".join([*above, *filter(None, [node.module])])
        elif (node.module or "").partition(".")[0] == "ntk_utils":
            module = node.module.removeprefix("ntk_utils").lstrip(".")
        else:
            return
        for alias in node.names:
            inner = f"{module}.{alias.name}".lstrip(".")
            yield inner if inner in SOURCES else module


def test_every_module_has_its_place():
    assert sorted({*ROOMS, *LAB}) == MODULES


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_only_rooms_on_its_left_and_the_laboratory_only_if_it_may(name):
    of_lab = {target for target in imports(name) if target.partition(".")[0] == "lab"}
    assert not of_lab or name in WITH_A_LABORATORY
    assert imports(name).keys() - of_lab <= set(ROOMS[: ROOMS.index(name)])


@pytest.mark.parametrize("name", LAB[2:])
def test_the_laboratory_imports_nothing_but_the_door_and_what_of_itself_stands_left(name):
    assert imports(name).keys() <= set(LAB[: LAB.index(name)])


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_package_imports_its_rooms_when_they_are_asked_for_alone(name):
    assert imports(name) == {}


@pytest.mark.parametrize("name", MODULES)
def test_neural_tangents_is_imported_by_the_function_that_needs_it(name):
    assert not imports(name).get("compat", False)


def test_rooms_do_import_each_other_and_compat_is_needed():
    # the tests above would pass if the imports were not found
    assert imports("bounds.empirical") == dict.fromkeys(
        ["_checks", "_scale", "activations", "bounds.hermite", "kernels", "networks", "spectra"],
        True,
    )
    assert imports("networks")["compat"] is False
    assert imports("lab.sweep")["lab._store"] is False
    assert {"lab.plotting", "lab.sweep"} <= imports("report").keys()


@pytest.mark.parametrize(
    ("statement", "name", "target"),
    [
        ("import ntk_utils", "data", ""),
        ("import ntk_utils.kernels as k", "data", "kernels"),
        ("from ntk_utils import kernels", "data", "kernels"),
        ("from ntk_utils import smallest_eigenvalue", "data", ""),
        ("from ntk_utils.bounds import limiting", "data", "bounds.limiting"),
        ("from ntk_utils.bounds.limiting import f", "data", "bounds.limiting"),
        ("from . import limiting", "bounds.empirical", "bounds.limiting"),
        ("from .limiting import f", "bounds.empirical", "bounds.limiting"),
        ("from .limiting import f", "bounds", "bounds.limiting"),
        ("from ..kernels import f", "bounds.empirical", "kernels"),
        ("from .. import kernels", "bounds.empirical", "kernels"),
    ],
)
def test_an_import_is_found_however_it_is_written(statement, name, target):
    (node,) = ast.parse(statement).body
    assert list(_targets(node, name)) == [target]


@pytest.mark.parametrize("name", [name for name in MODULES if "._" not in f".{name}"])
def test_every_public_module_has_its_tests_in_the_corresponding_place(name):
    *folders, module = name.split(".")
    assert (ROOT / "tests" / Path(*folders) / f"test_{module}.py").is_file()


def test_no_two_test_files_have_one_name():
    # without packages, pytest imports test files by their names alone
    names = sorted(path.name for path in (ROOT / "tests").rglob("*.py"))
    doubles = {a for a, b in itertools.pairwise(names) if a == b}
    assert doubles <= {"conftest.py"}
    assert not list((ROOT / "tests").rglob("__init__.py"))


def stub():
    """The names that the package promises, and the modules of which they are."""
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    return {(alias.asname, node.module or alias.name) for node in tree.body for alias in node.names}


@pytest.mark.parametrize(("name", "module"), sorted(stub()))
def test_every_name_that_the_package_promises_is_there_and_listed(name, module):
    assert getattr(ntk_utils, name) is not None
    assert name in ntk_utils.__all__
    assert name in dir(ntk_utils)
    value = getattr(ntk_utils, name)
    assert getattr(value, "__module__", f"ntk_utils.{module}") == f"ntk_utils.{module}"


# as the package had them before its rooms were divided
NAMES = """
    ConditioningReport ConstantColumnWarning DataWarning Estimate Exponent Fit Network
    RepeatedRowWarning Solution apply as_stax ascend_jacobian_norms backward_matrices conditioning
    conditioning_report contradictions diagonal_upper_bound digit_labels digits empirical_ntk
    empirical_ntk_fn feature_jacobian_norms_squared feature_matrices fit_exponent gauss_newton
    gaussian gradient_descent hermite_coefficient init_params khatri_rao_power largest_eigenvalue
    layer_ntks limiting_lower_bound limiting_ntk limiting_power_series lipschitz_product_squared
    mean_feature_gram mean_feature_gram_lower_bound mean_feature_norms_squared mean_kernel_diagonal
    mean_layer_diagonals nguyen21_feature_sigma_min_squared nguyen21_lambda_min_lower
    nguyen21_lambda_min_upper nguyen21_limiting_lower nguyen21_lipschitz_squared_upper ntk_diagonal
    ntk_operator ntk_solve plotting read_data scaling schur_lower_bound schur_terms separation
    smallest_eigenvalue smallest_singular_value spectrum sweep trace_of_square uniform_sphere
    use_style
"""


def test_no_public_name_was_lost_when_rooms_were_divided():
    assert [name for name in NAMES.split() if not hasattr(ntk_utils, name)] == []


# --- at the package's door ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [("empirical_nkt", "empirical_ntk"), ("sandwhich", "sandwich"), ("Networks", "Network")],
)
def test_a_mistyped_name_is_an_error_that_suggests_what_was_meant(name, meant):
    with pytest.raises(AttributeError, match=f"'ntk_utils' has no attribute '{name}': .* {meant}"):
        getattr(ntk_utils, name)


def test_a_name_like_no_other_is_an_error_without_a_suggestion():
    with pytest.raises(AttributeError, match=r"'ntk_utils' has no attribute 'qqqqq'$"):
        ntk_utils.qqqqq  # noqa: B018


def test_help_shows_the_types_as_they_are_written():
    code = """
import inspect, ntk_utils
for name in ntk_utils.__all__:
    value = getattr(ntk_utils, name)
    if inspect.isfunction(value):
        print(name, inspect.signature(value), sep="")
"""
    # in a process of its own: the run-time type checks of these tests have wrapped the functions
    printed = subprocess.check_output([sys.executable, "-c", code], text=True, encoding="utf-8")
    assert "Union" not in printed
    assert "jaxlib" not in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("layer_ntks(")]
    assert line.startswith("layer_ntks(params: 'Params', x: \"Float[ArrayLike, 'N d']\", *, ")
    assert line.endswith(") -> \"Float[Array, 'L N N']\"")


@pytest.mark.parametrize("x", [np.ones(3), np.ones((3, 2, 2))])
def test_the_types_are_checked_in_these_tests(x):
    separation = ntk_utils.separation.__wrapped__  # behind the door, which would refuse x itself
    assert separation(np.eye(3)) == pytest.approx(2**0.5)
    with pytest.raises(jaxtyping.TypeCheckError):
        separation(x)


def test_the_shapes_are_checked_against_one_another_in_these_tests(monkeypatch):
    params = ntk_utils.init_params(ntk_utils.Network((3, 4, 1)), jax.random.key(0))
    monkeypatch.setattr(ntk_utils.kernels, "where_x_lies", lambda *_: jax.numpy.ones((2, 3)))
    with pytest.raises(jaxtyping.TypeCheckError):
        ntk_utils.empirical_ntk(params, np.ones((2, 3)))
