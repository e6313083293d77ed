"""Tables measured from the shell: of what was asked for, each trial kept."""

import sys

import numpy as np
import pandas as pd
import pytest

from ntk_utils import sweep
from ntk_utils.lab import tables


def two_numbers(size, kind, *, key):
    import jax

    draw = float(jax.random.normal(key))
    return {"value of it": size * draw, kind: draw}


def never_the_same(size, kind, *, key):  # noqa: ARG001
    return float(np.random.default_rng().normal())


POINTS = [{"size": n, "kind": "draw"} for n in (1, 2)]


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """Run `measure` with the given words on the command line; returns the folder of tables."""

    def run(*words, **measured):
        folders = ["--cache", str(tmp_path / "build"), "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["tables", "--workers", "1", *folders, *words])
        tables.measure("help", measured, trials=3)
        return tmp_path

    return run


def test_a_table_has_mean_and_deviation_of_each_number_at_each_point(shell):
    folder = shell("--trials", "4", both=(two_numbers, POINTS))
    table = pd.read_csv(folder / "both.csv")
    drawn = sweep(two_numbers, POINTS, range(4), progress=False).groupby("size")
    assert table.columns.tolist() == [
        "size",
        "kind",
        *("value of it mean", "value of it sd", "draw mean", "draw sd", "trials"),
    ]
    np.testing.assert_allclose(table["draw mean"], drawn["draw"].mean(), rtol=1e-5)
    np.testing.assert_allclose(table["value of it sd"], drawn["value of it"].std(), rtol=1e-5)
    assert table.trials.tolist() == [4, 4]


def test_only_the_table_that_is_named_is_measured(shell):
    folder = shell("--only", "b", a=(two_numbers, POINTS), b=(two_numbers, POINTS[:1]))
    assert [path.name for path in folder.glob("*.csv")] == ["b.csv"]
    assert len(pd.read_csv(folder / "b.csv")) == 1


def test_a_name_that_is_no_table_is_refused(shell, capsys):
    with pytest.raises(SystemExit):
        shell("--only", "c", a=(two_numbers, POINTS))
    assert "invalid choice: 'c'" in capsys.readouterr().err


def test_a_trial_that_was_finished_is_read_back(shell):
    first, again = (
        pd.read_csv(shell(chance=(never_the_same, POINTS)) / "chance.csv") for _ in range(2)
    )
    pd.testing.assert_frame_equal(first, again)
    assert (first.sd > 0).all()
