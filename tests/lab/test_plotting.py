import dataclasses
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ntk_utils import Network, plotting

TABLE = pd.DataFrame(
    {
        "n": [40, 10, 10, 10, 40, 40],
        "seed": [0, 0, 1, 2, 1, 2],
        "value": [5.0, 1.0, 3.0, 2.5, 9.0, 4.0],
    }
)

# the hints say arrays; lists can be drawn as well
pytestmark = pytest.mark.usefixtures("without_type_checks")


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


def test_a_mean_has_a_band_of_one_standard_deviation_on_either_side(ax):
    plotting.mean(ax, [10, 40], [2.0, 5.0], [0.5, 2.0], label="mean")
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[10, 2.0], [40, 5.0]])
    corners = {tuple(vertex) for vertex in ax.collections[0].get_paths()[0].vertices}
    assert corners == {(10, 1.5), (10, 2.5), (40, 3.0), (40, 7.0)}


def test_published_points_are_black_crosses_without_a_line(ax):
    plotting.published(ax, [1, 2], [3, 4], label="published")
    (points,) = ax.lines
    assert (points.get_marker(), points.get_linestyle()) == ("x", "None")
    assert to_rgb(points.get_color()) == (0, 0, 0)
    np.testing.assert_array_equal(points.get_xydata(), [[1, 3], [2, 4]])


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
        lambda ax: plotting.mean(ax, [1, 2], [3, 4], [1, 1], label=""),
        lambda ax: plotting.published(ax, [1, 2], [3, 4], label=""),
        lambda ax: plotting.bound(ax, [1, 2], [3, 4], side="upper", label=""),
        lambda ax: plotting.limit(ax, [1, 2], [3, 4], label=""),
        lambda ax: plotting.reference_slope(ax, [1, 2], 1.0, through=(1, 1), label=""),
        lambda ax: plotting.spectrum(ax, [1.0, 2.0], label=""),
    ],
    ids=["measured", "mean", "published", "bound", "limit", "reference_slope", "spectrum"],
)
def test_every_function_draws_on_the_axes_it_is_given_and_returns_them(draw):
    _, (first, current) = plt.subplots(1, 2)
    assert draw(first) is first
    assert len(first.lines) == 1
    assert len(current.lines) == 0


CONTEXTS = {"paper": 0.8, "notebook": 1, "talk": 1.5, "poster": 2}


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_figure_grows_in_proportion_with_its_text_lines_and_markers(context):
    plotting.use_style("notebook")
    names = ("font.size", "legend.fontsize", "axes.labelsize", "lines.linewidth")
    names = (*names, "lines.markersize", "xtick.labelsize", "axes.linewidth")
    notebook = {name: mpl.rcParams[name] for name in names}
    plotting.use_style(context)
    scale = CONTEXTS[context]
    for name in names:
        assert mpl.rcParams[name] == pytest.approx(scale * notebook[name]), name
    figure, ax = plt.subplots()
    plotting.measured(ax, TABLE, "n", "value", label="λ_min(K̄)")
    ax.legend()
    figure.canvas.draw()
    assert figure.get_size_inches() == pytest.approx([scale * 5.5, scale * 3.4])


def test_a_figure_for_a_lecture_hall_is_as_large_as_its_docstring_says():
    plotting.use_style("talk")
    assert plt.figure().get_size_inches() == pytest.approx([8.25, 5.1])


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


# --- several axes, and one legend for them --------------------------------------------------------

LABELS = (
    r"measured $\lambda_{\min}(\bar K)$",
    r"$\min_i \bar K_{ii}$",
    "Schur bound",
    "infinite width",
    "slope 1/2",
)


def drawn(context, n, *, with_legend=True, labels=LABELS):
    """A figure of n panels, each with all labels, as a notebook draws it."""
    plotting.use_style(context)
    figure, axes = plotting.panels(n)
    for ax in axes:
        for label in labels:
            ax.plot([1, 2, 3], [1, 4, 9], label=label)
        ax.set(title="one panel", xlabel="width $n_1$", ylabel=r"$\lambda_{\min} / N$")
    legend = plotting.legend(figure) if with_legend else None
    figure.canvas.draw()
    return figure, axes, legend


def boxes(axes):
    return [ax.get_window_extent() for ax in axes]


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("context", ["notebook", "talk"])
def test_panels_stand_side_by_side_each_as_large_as_a_figure_of_its_own(n, context):
    figure, axes, _ = drawn(context, n, with_legend=False)
    _, alone, _ = drawn(context, 1, with_legend=False)
    assert axes.shape == (n,)
    width, height = mpl.rcParams["figure.figsize"]
    assert figure.get_size_inches() == pytest.approx([n * width, height])
    (of_one,) = boxes(alone)
    for box in boxes(axes):
        assert (box.width, box.height) == pytest.approx((of_one.width, of_one.height), rel=0.06)
    lefts = [box.x0 for box in boxes(axes)]
    assert lefts == sorted(lefts)
    assert len({round(box.y0, 3) for box in boxes(axes)}) == 1


def test_panels_in_rows_have_the_size_that_was_asked_for():
    figure, axes = plotting.panels(3, rows=2, size=0.5)
    assert axes.shape == (2, 3)
    width, height = mpl.rcParams["figure.figsize"]
    assert figure.get_size_inches() == pytest.approx([1.5 * width, height])
    assert axes[0, 2].get_position().y0 > axes[1, 2].get_position().y0


def test_panels_pass_their_options_on():
    _, (first, second) = plotting.panels(2, sharey=True)
    first.set_ylim(3, 4)
    assert second.get_ylim() == (3, 4)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("context", ["notebook", "talk"])
@pytest.mark.parametrize("labels", [LABELS[:1], LABELS])
def test_the_legend_stands_beside_the_axes_and_leaves_them_their_size(n, context, labels):
    figure, axes, legend = drawn(context, n, labels=labels)
    beside = legend.get_window_extent()
    whole = figure.bbox
    assert not any(ax.get_tightbbox().overlaps(beside) for ax in axes)
    assert whole.x0 <= beside.x0 <= beside.x1 <= whole.x1 + 1
    assert whole.y0 - 1 <= beside.y0 <= beside.y1 <= whole.y1 + 1
    assert beside.x0 > max(box.x1 for box in boxes(axes))
    of_axes = sum(box.width * box.height for box in boxes(axes))
    assert of_axes >= 0.4 * whole.width * whole.height
    _, bare, _ = drawn(context, n, labels=labels, with_legend=False)
    for box, without in zip(boxes(axes), boxes(bare), strict=True):
        assert box.width >= 0.97 * without.width
        assert box.height == pytest.approx(without.height, rel=0.01)


@pytest.mark.parametrize("n", [1, 2])
def test_a_figure_with_a_legend_is_some_quarters_of_an_inch_wider_and_no_higher(n):
    figure, _, _ = drawn("notebook", n)
    width, height = figure.get_size_inches()
    assert height == pytest.approx(3.4)
    assert 0 < width - n * 5.5 < 3
    assert 4 * width == round(4 * width)  # the same text width on another machine: the same figure


def test_the_legend_shows_a_label_once_in_the_order_of_the_panels_and_with_its_line():
    plotting.use_style()
    figure, (first, second) = plotting.panels(2)
    plotting.limit(first, [1, 2], [3, 4], label="limit")
    first.plot([1, 2], [1, 2], label="_hidden")
    plotting.bound(second, [1, 2], [3, 4], side="lower", label="bound", color="tab:red")
    plotting.limit(second, [1, 2], [3, 4], label="limit")
    legend = plotting.legend(figure, ncols=2)
    assert [text.get_text() for text in legend.get_texts()] == ["limit", "bound"]
    limit, bound = legend.get_lines()
    assert (limit.get_linestyle(), bound.get_linestyle()) == ("-", "--")
    assert to_rgb(bound.get_color()) == to_rgb("tab:red")
    assert figure.legends == [legend]


def test_two_columns_of_a_legend_are_lower_and_wider_than_one():
    plotting.use_style()
    sizes = []
    for ncols in (1, 2):
        figure, (ax,) = plotting.panels(1)
        for label in LABELS:
            ax.plot([1, 2], [1, 2], label=label)
        sizes.append(plotting.legend(figure, ncols=ncols).get_window_extent())
    assert sizes[1].width > 1.3 * sizes[0].width
    assert sizes[1].height < 0.8 * sizes[0].height


def test_a_figure_without_a_window_or_pyplot_gets_its_legend_too():
    plotting.use_style()
    figure = Figure()
    plotting.limit(figure.subplots(), [1, 2], [3, 4], label="limit")
    before = figure.get_size_inches()[0]
    plotting.legend(figure)
    assert figure.get_size_inches()[0] > before


# --- networks as bars -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("widths", "n_samples", "wide"),
    [
        ((5, 40, 8, 1), 40, [False, True, False, False]),  # N itself is wide
        ((5, 40, 8, 1), 41, [False, False, False, False]),
        ((64, 10, 200, 1), 20, [True, False, True, False]),
        ((3, 1), 1, [True, True]),
    ],
)
def test_layers_of_at_least_as_many_neurons_as_samples_are_filled_and_others_hatched(
    widths, n_samples, wide, ax
):
    plotting.architecture(ax, Network(widths), n_samples)
    bars = ax.patches
    assert [bar.get_height() for bar in bars] == list(widths)
    assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx(range(len(widths)))
    assert [bar.get_hatch() in (None, "") for bar in bars] == wide
    assert [to_rgb(bar.get_facecolor()) != (1, 1, 1) for bar in bars] == wide


def test_the_line_of_an_architecture_is_at_the_number_of_samples_on_a_logarithmic_scale(ax):
    assert plotting.architecture(ax, Network((5, 400, 8, 1)), 20) is ax
    (line,) = ax.lines
    assert list(line.get_ydata()) == [20, 20]
    assert line.get_linestyle() == "--"
    assert re.search("N ?= ?20", line.get_label())
    assert ax.get_yscale() == "log"
    low, high = ax.get_ylim()
    assert 0 < low < 1 < 400 < high


def test_bars_are_named_by_the_symbols_of_the_layers_and_show_their_widths(ax):
    plotting.architecture(ax, Network((5, 400, 8, 1)), 20)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["$d$", "$n_{1}$", "$n_{2}$", "output"]
    assert [(t.get_text(), t.xy) for t in ax.texts] == [
        ("5", (0, 5)),
        ("400", (1, 400)),
        ("8", (2, 8)),
        ("1", (3, 1)),
    ]
    ax.figure.canvas.draw()
    assert all(ax.get_window_extent().y1 > t.get_window_extent().y1 for t in ax.texts)


def test_anything_with_widths_is_an_architecture_and_nothing_else(ax):
    @dataclasses.dataclass
    class Sketch:
        widths: tuple = (2, 3, 1)

    plotting.architecture(ax, Sketch(), 2)
    assert len(ax.patches) == 3
    with pytest.raises(TypeError, match="network: expected a network with widths, got tuple"):
        plotting.architecture(ax, (2, 3, 1), 2)
