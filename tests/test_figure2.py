"""The published Figure 2: the grid is the paper's, and a trial is the plotted quantity."""

import sys
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ntk_utils import (
    Network,
    as_stax,
    empirical_ntk,
    figure2,
    gaussian,
    init_params,
    sweep,
    wide_layer_ntks,
)

DATA = Path(__file__).parents[1] / "notebooks" / "data"
POINT = ["panel", "d", "n_samples", "n_1", "n_2"]


def test_the_grid_holds_all_102_published_points_and_one_curve_on_the_sphere():
    published = pd.read_csv(DATA / "nguyen21_figure2.csv")[POINT]
    grid = pd.DataFrame(figure2.GRID)
    assert len(published) == 102
    pd.testing.assert_frame_equal(
        grid[grid.panel != "right, sphere"].sort_values(POINT, ignore_index=True),
        published.sort_values(POINT, ignore_index=True),
    )
    assert len(grid) == 102 + 17


@pytest.mark.parametrize(
    ("panel", "init", "unit"), [("right", "he", 1.0), ("left", (1.0, 1.0, 1.0), 4 / (40 * 7))]
)
def test_a_trial_is_the_smallest_eigenvalue_in_the_units_of_its_panel(panel, init, unit):
    key_x, key_w = jax.random.split(jax.random.key(3))
    k = empirical_ntk(init_params(Network((6, 40, 7, 1), init), key_w), gaussian(key_x, 12, 6))
    found = figure2.trial(panel, 6, 12, 40, 7, key=jax.random.key(3))
    assert found == pytest.approx(unit * np.linalg.eigvalsh(k)[0], rel=1e-10)


@pytest.mark.parametrize(("panel", "init"), [("right", "he"), ("left", (1.0, 1.0, 1.0))])
def test_the_wide_limit_is_that_of_as_stax_on_the_samples_of_the_trial(panel, init):
    network, unit = Network((6, 40, 7, 1), init), 4 / (40 * 7) if panel == "left" else 1.0
    x = gaussian(jax.random.split(jax.random.key(3))[0], 12, 6)
    k = as_stax(network)[2](x, None, "ntk")
    found = figure2.wide_limit(panel, 6, 12, 40, 7, key=jax.random.key(3))
    assert found["limit"] == pytest.approx(unit * np.linalg.eigvalsh(k)[0], rel=1e-6)
    of_w_2 = unit * np.linalg.eigvalsh(wide_layer_ntks(network, x)[1])[0]
    assert found["limit of W₂"] == pytest.approx(of_w_2, rel=1e-10)


def tables(mean, published, sd=7.0, trials=20):
    """What was measured and what was published on one curve of the right panel, at N = 400, …."""
    n = np.arange(400, 400 + 100 * len(mean), 100)
    points = {"panel": "right", "d": 400, "n_samples": n, "n_1": 8 * n, "n_2": 400}
    measured = pd.DataFrame({**points, "mean": mean, "sd": sd, "trials": trials})
    limits = pd.DataFrame({**points, "limit": 3.0 * n, "limit of W₂": 2.0 * n**2.0})
    return measured, pd.DataFrame({**points, "lambda_min": published}), limits


def test_a_published_point_is_compared_in_standard_errors_beyond_the_reading_error():
    (row,) = figure2.by_curve(*tables([100.0, 200, 300], [100.0, 187, 305])).iloc
    of_the_difference = 7 * np.sqrt(1 / 20 + 1 / 50)
    assert row["largest |z|"] == pytest.approx(3 / of_the_difference)
    assert row["|mean z|"] == pytest.approx(3 / of_the_difference / np.sqrt(3))
    assert row["difference"] == pytest.approx((13 / 187 - 5 / 305) / 3)


def test_a_curve_on_the_sphere_is_compared_with_the_published_one():
    measured, *others = tables([100.0, 200, 300], [100.0, 200, 330])
    measured["panel"] = "right, sphere"
    found = figure2.by_curve(measured, *others)
    assert found.index.tolist() == [("right, sphere", "d = 400, n₂ = 400")]
    assert found["largest |z|"].item() > 10


def test_a_straight_line_is_found_with_its_intercept_and_one_through_0_is_told_from_it():
    n = np.arange(400, 900, 100)
    (row,) = figure2.by_curve(*tables(300 + 2.0 * n, 300 + 2.0 * n)).iloc
    assert (row.intercept, row.slope) == (pytest.approx(300), pytest.approx(2))
    assert row["line, χ²"] < 1e-10
    assert row["through 0, χ²"] > 100
    assert row["power, χ²"] > 0.01
    (row,) = figure2.by_curve(*tables(2.0 * n, 2.0 * n)).iloc
    assert row["through 0, χ²"] < 1e-10
    assert row["power, χ²"] < 1e-10
    slopes = row[["log-log slope", "published", "limit", "limit of W₂"]]
    assert slopes.tolist() == [pytest.approx(slope) for slope in (1, 1, 1, 2)]
    assert row["±"] == pytest.approx(np.hypot(1 / 800, 1 / 1600) * 7 / np.sqrt(20) / np.log(2))


def test_a_misfit_is_near_1_when_only_chance_parts_the_means_from_a_line():
    n, errors = np.arange(400, 2100, 100), np.random.default_rng(0).normal(0, 7 / np.sqrt(20), 17)
    (row,) = figure2.by_curve(*tables(300 + 2.0 * n + errors, n)).iloc
    assert 0.4 < row["line, χ²"] < 1.8


def test_a_panel_shows_what_was_measured_with_its_bands_what_was_published_and_the_limit():
    measured, published, limits = tables([100.0, 200, 300], [110.0, 210, 310])
    left = measured.assign(panel="left", n_samples=9, d=[400, 500, 600], n_1=7, n_2=7)
    everywhere = pd.concat([measured, measured.assign(panel="right, sphere"), left])
    axes = plt.subplots(1, 2)[1]
    for ax, panel in zip(axes, ("right", "left"), strict=True):
        figure2.draw(ax, panel, measured=everywhere, published=published, limits=limits)
    labels = [[line.get_label() for line in ax.lines] for ax in axes]
    curve = "d = 400, n₂ = 400"
    assert labels[0] == [curve, f"{curve}, sphere", "wide-network limit", "published"]
    assert labels[1] == ["N = 9, n₁ = n₂ = 7"]
    np.testing.assert_array_equal(axes[0].lines[3].get_xydata()[0], [400, 110])
    np.testing.assert_array_equal(axes[1].lines[0].get_xdata(), [400, 500, 600])


def test_the_table_holds_mean_and_spread_of_the_trials_and_is_written_again_from_the_cache(
    tmp_path, monkeypatch
):
    sizes = {"d": 3, "n_samples": 5, "n_1": 8, "n_2": 6}
    grid = [{"panel": panel, **sizes} for panel in ("right", "left")]
    monkeypatch.setattr(figure2, "GRID", grid)
    folders = ["--cache", str(tmp_path / "build"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["figure2", "--trials", "3", "--workers", "1", *folders])
    tables = []
    for _ in range(2):
        figure2.main()
        tables.append(pd.read_csv(tmp_path / "figure2.csv"))
    drawn = sweep(figure2.trial, grid, range(3), progress=False)
    by_panel = drawn.groupby("panel", sort=False)["value"]
    np.testing.assert_allclose(tables[0]["mean"], by_panel.mean(), rtol=1e-5)
    np.testing.assert_allclose(tables[0]["sd"], by_panel.std(), rtol=1e-5)
    assert tables[0].columns.tolist() == [*POINT, "mean", "sd", "trials"]
    pd.testing.assert_frame_equal(tables[0], tables[1])
