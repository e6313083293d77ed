"""The published Figure 2: the grid is the paper's, and a trial is the plotted quantity."""

import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from ntk_utils import Network, empirical_ntk, figure2, gaussian, init_params, sweep

DATA = Path(__file__).parents[1] / "notebooks" / "data"
POINT = ["panel", "d", "n_samples", "n_1", "n_2"]


def test_the_grid_holds_all_102_published_points_and_three_on_the_sphere():
    published = pd.read_csv(DATA / "nguyen21_figure2.csv")[POINT]
    grid = pd.DataFrame(figure2.GRID)
    assert len(published) == 102
    pd.testing.assert_frame_equal(
        grid[grid.panel != "right, sphere"].sort_values(POINT, ignore_index=True),
        published.sort_values(POINT, ignore_index=True),
    )
    assert len(grid) == 105


@pytest.mark.parametrize(
    ("panel", "init", "unit"), [("right", "he", 1.0), ("left", (1.0, 1.0, 1.0), 4 / (40 * 7))]
)
def test_a_trial_is_the_smallest_eigenvalue_in_the_units_of_its_panel(panel, init, unit):
    key_x, key_w = jax.random.split(jax.random.key(3))
    k = empirical_ntk(init_params(Network((6, 40, 7, 1), init), key_w), gaussian(key_x, 12, 6))
    found = figure2.trial(panel, 6, 12, 40, 7, key=jax.random.key(3))
    assert found == pytest.approx(unit * np.linalg.eigvalsh(k)[0], rel=1e-10)


def test_the_table_holds_mean_and_spread_of_the_trials_and_is_written_again_from_the_cache(
    tmp_path, monkeypatch
):
    sizes = {"d": 3, "n_samples": 5, "n_1": 8, "n_2": 6}
    grid = [{"panel": panel, **sizes} for panel in ("right", "left")]
    monkeypatch.setattr(figure2, "GRID", grid)
    folders = ["--cache", str(tmp_path / "trials"), "--out", str(tmp_path / "table.csv")]
    monkeypatch.setattr(sys, "argv", ["figure2", "--trials", "3", "--workers", "1", *folders])
    tables = []
    for _ in range(2):
        figure2.main()
        tables.append(pd.read_csv(tmp_path / "table.csv"))
    drawn = sweep(figure2.trial, grid, range(3), progress=False)
    by_panel = drawn.groupby("panel", sort=False)["value"]
    np.testing.assert_allclose(tables[0]["mean"], by_panel.mean(), rtol=1e-5)
    np.testing.assert_allclose(tables[0]["sd"], by_panel.std(), rtol=1e-5)
    assert tables[0].columns.tolist() == [*POINT, "mean", "sd", "trials"]
    pd.testing.assert_frame_equal(tables[0], tables[1])
