import jaxtyping
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from ntk_utils import plotting

TABLE = pd.DataFrame(
    {
        "n": [40, 10, 10, 10, 40, 40],
        "seed": [0, 0, 1, 2, 1, 2],
        "value": [5.0, 1.0, 3.0, 2.5, 9.0, 4.0],
    }
)


@pytest.fixture(autouse=True)
def without_type_checks(monkeypatch):
    """The hints say arrays; lists can be drawn as well."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(autouse=True)
def own_style():
    """Every test starts from matplotlib's defaults without a screen, and leaves no figure open."""
    mpl.use("Agg")
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.use("Agg")
        yield
    plt.close("all")


@pytest.fixture
def ax():
    return plt.subplots()[1]


def test_measured_is_the_median_over_the_seeds_with_markers():
    plotting.use_style()
    ax = plt.subplots()[1]
    plotting.measured(ax, TABLE, "n", "value", label="λ_min")
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_xydata(), [[10, 2.5], [40, 5.0]])
    assert line.get_label() == "λ_min"
    assert line.get_marker() not in ("", "None", None)


def test_the_band_runs_from_the_smallest_to_the_largest_seed(ax):
    plotting.measured(ax, TABLE, "n", "value", label="")
    (band,) = ax.collections
    corners = {tuple(vertex) for vertex in band.get_paths()[0].vertices}
    assert corners == {(10, 1.0), (10, 3.0), (40, 4.0), (40, 9.0)}
    assert to_rgb(band.get_facecolor()[0]) == to_rgb(ax.lines[0].get_color())
    assert 0 < band.get_alpha() < 1


def test_series_differ_by_marker_and_by_colour():
    plotting.use_style()
    ax = plt.subplots()[1]
    for i in range(6):
        plotting.measured(ax, TABLE, "n", "value", label=str(i))
    assert len({line.get_marker() for line in ax.lines}) == 6
    assert len({line.get_color() for line in ax.lines}) == 6


@pytest.mark.parametrize(("side", "style"), [("lower", "--"), ("upper", ":")])
def test_a_lower_bound_is_dashed_and_an_upper_one_dotted(side, style, ax):
    plotting.bound(ax, [1, 2], [3, 4], side=side, label="bound")
    (line,) = ax.lines
    assert line.get_linestyle() == style
    assert line.get_marker() == ""
    assert to_rgb(line.get_color()) == (0, 0, 0)
    np.testing.assert_array_equal(line.get_xydata(), [[1, 3], [2, 4]])


def test_a_bound_takes_the_colour_of_its_series_when_asked(ax):
    plotting.bound(ax, [1, 2], [3, 4], side="lower", label="", color="tab:red")
    assert ax.lines[0].get_color() == "tab:red"


def test_the_limit_is_a_solid_black_line(ax):
    plotting.limit(ax, [1, 2], [3, 4], label="limit")
    (line,) = ax.lines
    assert line.get_linestyle() == "-"
    assert to_rgb(line.get_color()) == (0, 0, 0)
    assert (line.get_marker(), line.get_label()) == ("", "limit")
    np.testing.assert_array_equal(line.get_xydata(), [[1, 3], [2, 4]])


def test_a_reference_slope_is_a_thin_grey_power_law_through_its_point(ax):
    plotting.reference_slope(ax, [20, 10, 40], 1.5, through=(20, 3.0), label="slope 3/2")
    (line,) = ax.lines
    x, y = line.get_xydata().T
    assert x.tolist() == [10, 40]
    np.testing.assert_allclose(y, 3 * (x / 20) ** 1.5, rtol=1e-12)
    assert to_rgb(line.get_color()) == to_rgb("grey")
    assert line.get_linewidth() < 1
    assert (line.get_linestyle(), line.get_marker()) == ("-", "")


def test_log_log_makes_both_axes_logarithmic_with_the_sizes_as_only_ticks(ax):
    plotting.measured(ax, TABLE, "n", "value", label="")
    assert plotting.log_log(ax, [10, 40]) is ax
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_xticks().tolist() == [10, 40]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["10", "40"]
    assert ax.get_xticks(minor=True).tolist() == []


def test_a_spectrum_descends_on_a_logarithmic_scale_and_omits_what_is_not_positive(ax):
    plotting.spectrum(ax, [1.0, -1e-16, 100.0, 10.0], label="")
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(line.get_ydata(), [100, 10, 1, np.nan])
    assert ax.get_yscale() == "log"


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: plotting.measured(ax, TABLE, "n", "value", label=""),
        lambda ax: plotting.bound(ax, [1, 2], [3, 4], side="upper", label=""),
        lambda ax: plotting.limit(ax, [1, 2], [3, 4], label=""),
        lambda ax: plotting.reference_slope(ax, [1, 2], 1.0, through=(1, 1), label=""),
        lambda ax: plotting.spectrum(ax, [1.0, 2.0], label=""),
    ],
    ids=["measured", "bound", "limit", "reference_slope", "spectrum"],
)
def test_every_function_draws_on_the_axes_it_is_given_and_returns_them(draw):
    _, (first, current) = plt.subplots(1, 2)
    assert draw(first) is first
    assert len(first.lines) == 1
    assert len(current.lines) == 0


@pytest.mark.parametrize("context", ["paper", "notebook", "talk", "poster"])
def test_figures_of_every_context_have_the_same_size_and_can_be_drawn(context):
    plotting.use_style(context)
    figure, ax = plt.subplots()
    plotting.measured(ax, TABLE, "n", "value", label="λ_min(K̄)")
    ax.legend()
    figure.canvas.draw()
    assert figure.get_size_inches().tolist() == [5.5, 3.4]


def test_text_grows_from_paper_to_poster():
    sizes = []
    for context in ("paper", "notebook", "talk", "poster"):
        plotting.use_style(context)
        sizes.append(mpl.rcParams["font.size"])
    assert sizes == sorted(set(sizes))


def test_the_default_context_is_the_notebook():
    plotting.use_style("notebook")
    expected = dict(mpl.rcParams)
    plotting.use_style("talk")
    plotting.use_style()
    assert dict(mpl.rcParams) == expected


def test_svg_figures_of_one_curve_are_the_same_file_twice(tmp_path):
    plotting.use_style()
    for name in ("one.svg", "two.svg"):
        figure, ax = plt.subplots()
        plotting.measured(ax, TABLE, "n", "value", label="")
        figure.savefig(tmp_path / name, metadata={"Date": None})
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
