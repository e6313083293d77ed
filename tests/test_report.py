import itertools
import re
import warnings

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import ntk_utils
from ntk_utils import (
    ConstantColumnWarning,
    DataWarning,
    DominantColumnWarning,
    RepeatedRowWarning,
    conditioning_report,
    digits,
    gaussian,
    limiting_lower_bound,
    limiting_ntk,
    separation,
    smallest_eigenvalue,
    uniform_sphere,
)


def test_orthogonal_samples_have_the_limit_of_the_closed_form():
    # K^(2) = d [(1 - 1/π) I + (1/π) 1 1ᵀ + I] with G^(1) diagonal: λ_min = d (2 - 1/π)
    report = conditioning_report(3 * np.eye(9), scale="none", seeds=[0])
    assert report.table.lambda_min[np.inf] == pytest.approx(9 * (2 - 1 / np.pi), rel=1e-6)
    assert report.table.upper[np.inf] == pytest.approx(18, rel=1e-6)
    assert report.table.share[np.inf] == pytest.approx(1 - 1 / (2 * np.pi), rel=1e-6)


@pytest.mark.parametrize("widths", [None, (12, 60, 1), (12, 20, 80, 30, 1)])
def test_certificates_enclose_every_smallest_eigenvalue(widths, key):
    report = conditioning_report(uniform_sphere(key, 40, 12), widths, seeds=range(4))
    draws = report.draws
    assert (draws.lower <= draws.lambda_min + 1e-9).all()
    assert (draws.lambda_min <= draws.upper + 1e-9).all()
    assert (draws.lower[draws.width >= 80] > 0).all()
    limit = report.table.loc[np.inf]
    assert 0 < limit.lower <= limit.lambda_min <= limit.upper


def test_a_proof_is_given_for_every_drawn_network_if_asked_for(key):
    x = uniform_sphere(key, 40, 12)
    report = conditioning_report(x, (12, 80, 10, 1), verified=True)
    draws = report.draws[report.draws.width >= 20]
    assert (draws.proved <= draws.lambda_min).all()
    assert (draws.proved >= (1 - 1e-6) * draws.lambda_min).all()
    assert (draws.proved > 0).sum() > len(draws) / 2  # some have a dead sample
    (line,) = (value for name, value in report.summary.value.items() if name.startswith("proved"))
    best = report.draws.proved.max()
    assert 0.99 * best < float(line.removeprefix(">= ")) <= best
    assert "proved" not in conditioning_report(x, (12, 80, 10, 1)).draws


def test_nothing_is_proved_of_repeated_samples(key):
    x = np.asarray(uniform_sphere(key, 10, 5))
    with pytest.warns(RepeatedRowWarning):
        report = conditioning_report(np.vstack([x, x[:1]]), seeds=[0], verified=True)
    assert (report.draws.proved == 0).all()


def test_the_drawn_kernels_tend_to_the_limiting_kernel(key):
    x = uniform_sphere(key, 20, 10)
    report = conditioning_report(x, (10, 4000, 1), scale="none")
    wide = report.draws[report.draws.width == 4000]
    limit = report.table.loc[np.inf]
    assert limit.lambda_min == pytest.approx(smallest_eigenvalue(limiting_ntk(x, depth=2)))
    assert limit.lower == limiting_lower_bound(x, depth=2)
    np.testing.assert_allclose(wide.lambda_min, np.full(3, limit.lambda_min), rtol=0.15)
    np.testing.assert_allclose(wide.share, np.full(3, limit.share), rtol=0.15)


def test_the_width_is_the_first_that_reaches_half_of_the_limits_share(key):
    report = conditioning_report(uniform_sphere(key, 60, 20))
    shares = report.table.share
    assert shares[report.width] >= shares[np.inf] / 2
    below = shares[shares.index < report.width]
    assert len(below) > 0
    assert (below < shares[np.inf] / 2).all()
    assert 60 in shares.index  # the network of the default
    assert shares.index[0] * (20 + 1) >= 60 > shares.index[0] / 2 * (20 + 1) - 21


def test_a_given_network_is_drawn_even_where_a_narrower_one_would_do(key):
    report = conditioning_report(uniform_sphere(key, 20, 10), (10, 320, 1))
    assert report.width < 320
    assert 320 in report.table.index


def test_the_widest_hidden_layer_is_the_one_that_is_searched(key):
    report = conditioning_report(uniform_sphere(key, 30, 10), (10, 25, 64, 9, 1), seeds=[0])
    assert 64 in report.table.index
    assert 25 not in report.table.index
    assert report.summary.value["network"] == "(10, 25, 64, 9, 1)"


def test_a_bottleneck_of_one_neuron_leaves_the_search_without_an_answer(key):
    report = conditioning_report(uniform_sphere(key, 30, 10), (10, 32, 1, 1))
    assert report.width is None
    assert report.summary.value["smallest width with half of the limit's share"] == "none found"
    assert max(report.draws.width) == 256  # the last of 32 · 2^m that is at most 16 N = 480
    assert report.plot(Figure().subplots()).get_legend() is not None


def test_repeated_rows_are_warned_of_by_index_and_have_no_width(key):
    x = np.array(gaussian(key, 20, 5))
    x[7], x[9] = x[3], x[3]
    with pytest.warns(RepeatedRowWarning, match=r"rows \(3, 7\), \(3, 9\), \(7, 9\)") as caught:
        report = conditioning_report(x)
    assert caught[0].message.indices == [(3, 7), (3, 9), (7, 9)]
    assert report.width is None
    assert abs(report.table.share[np.inf]) < 1e-6
    assert (report.draws.share.abs() < 1e-12).all()


def test_parallel_rows_repeat_after_scaling_only_if_they_point_the_same_way():
    x = np.array(gaussian(jax.random.key(0), 10, 5))
    x[1] = 2 * x[0]
    with pytest.warns(RepeatedRowWarning):
        conditioning_report(x, scale="none", seeds=[0])
    x[1] = -x[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert conditioning_report(x, scale="none", seeds=[0]).width is not None


def test_constant_columns_are_warned_of_by_index_and_do_no_harm(key):
    x = np.array(gaussian(key, 20, 5))
    x[:, [1, 4]] = [0.1, 7]
    with pytest.warns(ConstantColumnWarning, match="columns 1, 4 have one value") as caught:
        report = conditioning_report(x, seeds=[0])
    assert caught[0].message.indices == [1, 4]
    assert issubclass(ConstantColumnWarning, DataWarning)
    assert report.width is not None


@pytest.mark.parametrize("scale", ["sphere", "none"])
def test_a_column_of_many_orders_of_magnitude_is_warned_of_by_index(scale, key):
    x = np.array(gaussian(key, 20, 5))
    x[:, 2] = 10 * np.sign(x[:, 2])  # a share of about 100/104
    conditioning_report(x, scale=scale, seeds=[0])  # warnings are errors
    x[:, 2] *= 10.0 ** np.linspace(1, 3, 20)
    with pytest.warns(DominantColumnWarning, match=r"column 2 carries (99\.\d|100\.0)%") as caught:
        conditioning_report(x, scale=scale, seeds=[0])
    assert caught[0].message.indices == [2]
    assert issubclass(DominantColumnWarning, DataWarning)


def test_a_single_column_dominates_nothing():
    assert conditioning_report([[1.0], [-2.0]], scale="none", seeds=[0]).draws is not None


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e200, 1.7e308])
def test_samples_of_any_scale_have_the_report_of_their_directions(size):
    x = np.random.default_rng(0).uniform(-1, 1, size=(8, 4))
    expected = conditioning_report(x, seeds=[0])
    found = conditioning_report(size * x, seeds=[0])
    np.testing.assert_allclose(found.table, expected.table, rtol=1e-6)
    assert found.width == expected.width


def test_scaling_to_the_sphere_centres_columns_and_scales_rows(key):
    x = np.array(gaussian(key, 30, 6))
    shifted = conditioning_report(5 * x + 100, seeds=[0]).table
    np.testing.assert_allclose(conditioning_report(x, seeds=[0]).table, shifted, rtol=1e-6)
    centred = x - x.mean(axis=0)
    by_hand = np.sqrt(6) * centred / np.linalg.norm(centred, axis=1, keepdims=True)
    as_given = conditioning_report(by_hand, scale="none", seeds=[0])
    np.testing.assert_allclose(as_given.table, shifted, rtol=1e-6)
    assert as_given.summary.value["separation"] == float(f"{separation(by_hand):.3g}")


def test_a_sample_that_scaling_takes_to_zero_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"x: expected samples other than 0 .* zero rows 1$"):
        conditioning_report([[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]])


def test_three_lines_take_a_file_to_a_report_and_a_figure(tmp_path, key):
    np.savetxt(tmp_path / "mine.csv", gaussian(key, 25, 4), delimiter=",")
    x = ntk_utils.read_data(tmp_path / "mine.csv")
    report = ntk_utils.conditioning_report(x)
    ax = report.plot()
    (legend,) = ax.figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[0].startswith("measured")
    assert "infinite width" in labels
    plt.close(ax.figure)
    assert "separation" in str(report)
    assert "lambda_min" in str(report)
    assert report._repr_html_().count("<table") == 2


def test_the_report_of_500_digits_has_a_width_below_their_number():
    x = np.asarray(digits(500))
    with pytest.warns(ConstantColumnWarning) as caught:
        report = conditioning_report(x, seeds=[0])
    assert caught[0].message.indices == [0, 32, 39]
    assert 64 < report.width <= 500
    limit = report.table.loc[np.inf]
    assert limit.lambda_min / 4 < limit.lower <= limit.lambda_min


def test_widths_are_printed_as_integers_and_infinity_as_such(key):
    report = conditioning_report(uniform_sphere(key, 20, 10), seeds=[0])
    printed = [*["3", "5", "10", "20", "40"][: len(report.table) - 1], "∞"]
    table = str(report).partition("\n\n")[2].splitlines()[2:]
    assert [line.split()[0] for line in table] == printed
    html = report._repr_html_().rpartition("<table")[2]
    assert re.findall("<th>(.*)</th>", html)[-len(printed) :] == printed
    assert report.table.index[-1] == np.inf  # a number still


# --- the time that it takes -----------------------------------------------------------------------


def test_the_progress_bar_shows_when_asked_for_and_changes_no_number(key, capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE")  # of these tests
    monkeypatch.setattr(ntk_utils.report, "_PATIENCE", 0)
    x = uniform_sphere(key, 20, 10)
    silent = conditioning_report(x, progress=False)
    assert capsys.readouterr().err == ""
    shown = conditioning_report(x)
    bar = capsys.readouterr().err
    assert "conditioning_report: 100%" in bar
    assert f"width {shown.draws.width.max()}" in bar
    pd.testing.assert_frame_equal(shown.table, silent.table, check_exact=True)


def test_many_samples_are_told_beforehand_how_long_it_takes(key, capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE")
    monkeypatch.setattr(ntk_utils.report, "_PATIENCE", 0)
    monkeypatch.setattr(ntk_utils.report, "_LONG", 20)
    monkeypatch.setattr(ntk_utils.report, "_multiplications_a_second", lambda: 1e5)
    conditioning_report(uniform_sphere(key, 20, 10), seeds=[0])
    # 400 (20 + 15000) for the limit, 400 (2 n + 20 + 2000) for n = 3, 5, 10, and 20 more from
    # n = 20 to 320 on
    assert "about 90 s to width 20, at most 2 min: " in capsys.readouterr().err
    conditioning_report(uniform_sphere(key, 19, 10), seeds=[0])
    assert "about" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (94.0, "90 s"), (95.0, "2 min"), (700.0, "10 min"), (6000.0, "2 h")],
)
def test_an_estimate_has_one_digit(seconds, text):
    assert ntk_utils.report._rounded(seconds) == text


def test_the_machine_multiplies_at_least_a_million_numbers_a_second():
    assert 1e6 < ntk_utils.report._multiplications_a_second(100) < 1e14


def test_a_large_singular_kernel_is_not_reduced_to_tridiagonal_form(key, monkeypatch):
    def fails(_):
        raise AssertionError

    monkeypatch.setattr(ntk_utils.spectra, "_by_tridiagonal_form", fails)
    x = np.array(gaussian(key, 1610, 5))
    x[7] = x[3]
    with pytest.warns(RepeatedRowWarning):
        report = conditioning_report(x, seeds=[0])
    assert report.table.lambda_min[np.inf] == 0
    assert report.draws.lambda_min.tolist() == [0]


# --- singular limits ------------------------------------------------------------------------------


def on_a_circle(n):
    angles = 2 * np.pi * np.arange(n) / n
    return np.column_stack([np.cos(angles), np.sin(angles)])


def with_a_near_duplicate():
    x = np.random.default_rng(0).normal(size=(6, 3))
    return np.vstack([x, x[:1] + 1e-11])


SINGULAR = {
    "corners of the cube": np.array(list(itertools.product([-1.0, 1.0], repeat=3))),
    "corners in four dimensions": np.array(list(itertools.product([-1.0, 1.0], repeat=4))),
    "evenly on a circle": on_a_circle(12),
    "a near duplicate": with_a_near_duplicate(),
}


@pytest.mark.parametrize("name", SINGULAR)
def test_a_limit_that_is_singular_is_called_so_and_has_no_width(name):
    report = conditioning_report(SINGULAR[name], scale="none", seeds=[0])
    assert report.singular
    assert report.width is None
    answer = report.summary.value["smallest width with half of the limit's share"]
    assert answer == "the limit is singular"
    assert answer in str(report)
    assert report.table.lower[np.inf] == 0
    assert report.table.share[np.inf] <= 1e-10
    assert len(report.draws) == 1


def test_samples_in_general_position_have_no_singular_limit(key):
    report = conditioning_report(gaussian(key, 10, 5), seeds=[0])
    assert not report.singular
    assert report.width is not None


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_a_row_at_the_mean_is_an_error_whatever_the_rounding_of_the_mean(scale):
    for x in ([[1, 7], [2, 8], [3, 9]], [[0.1, 0.7], [0.2, 0.8], [0.3, 0.9]]):
        with pytest.raises(ValueError, match=r"x: expected samples other than 0 .* zero rows 1$"):
            conditioning_report(scale * np.array(x), seeds=[0])


def test_a_row_near_the_mean_but_not_at_it_is_a_sample():
    x = np.array([[0.1, 0.7], [0.2, 0.8 + 1e-9], [0.3, 0.9]])
    assert "samples N" in conditioning_report(x, seeds=[0]).summary.index


@pytest.mark.parametrize("seeds", [[0, 1, 2], (0, 1, 2), iter(range(3)), (s for s in range(3))])
def test_seeds_may_be_anything_that_can_be_gone_through_once(seeds):
    x = np.abs(np.random.default_rng(0).normal(size=(6, 3)))
    found, expected = conditioning_report(x, seeds=seeds), conditioning_report(x, seeds=range(3))
    assert found.width == expected.width
    pd.testing.assert_frame_equal(found.draws, expected.draws)
