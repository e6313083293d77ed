import json
import random

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pandas as pd
import pytest

from ntk_utils import Exponent, fit_exponent, sweep, verdict


def draws(n, key):
    """Two numbers that depend on the point and on the key."""
    a, b = jax.random.normal(key, (2,))
    return {"a": n + float(a), "b": float(b)}


def uniform(key, **_):
    return jax.random.uniform(key)


def quiet_sweep(measure, grid, seeds):
    return sweep(measure, grid, seeds, progress=False)


@pytest.fixture
def without_type_checks(monkeypatch):
    """The type hints promise less than the functions accept: NumPy's numbers, lists."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


# --- sweep ----------------------------------------------------------------------------------------


def test_table_has_one_row_a_measurement_ordered_by_point_then_seed():
    table = quiet_sweep(draws, {"n": [20, 10]}, [3, 1])
    assert list(table) == ["n", "seed", "a", "b"]
    assert table[["n", "seed"]].to_numpy().tolist() == [[20, 3], [20, 1], [10, 3], [10, 1]]
    assert table.index.tolist() == [0, 1, 2, 3]
    assert table.dtypes.astype(str).tolist() == ["int64", "int64", "float64", "float64"]


def test_a_plain_number_is_called_value():
    table = quiet_sweep(lambda n, key: np.float32(n) / 2, {"n": [1, 2]}, [0])  # noqa: ARG005
    assert list(table) == ["n", "seed", "value"]
    assert table["value"].tolist() == [0.5, 1.0]
    assert table["value"].dtype == np.float64


def test_a_mapping_of_values_stands_for_all_combinations():
    table = quiet_sweep(uniform, {"n": [1, 2], "init": ["lecun", "he"]}, range(2))
    assert len(table) == 8
    assert set(zip(table["n"], table["init"], strict=True)) == {
        (1, "lecun"),
        (1, "he"),
        (2, "lecun"),
        (2, "he"),
    }


def test_a_list_of_points_is_measured_as_it_is():
    points = [{"n": 1, "d": 5}, {"n": 2, "d": 7}]
    table = quiet_sweep(uniform, iter(points), iter([0]))
    assert table[["n", "d"]].to_dict("records") == points


def test_sequences_are_values_of_a_grid_too():
    table = quiet_sweep(
        lambda widths, key: len(widths) + 0 * jax.random.uniform(key),
        {"widths": [(3, 1), (3, 4, 1)]},
        [0],
    )
    assert table["value"].tolist() == [2.0, 3.0]


def test_the_same_sweep_twice_gives_the_same_table():
    first, second = (quiet_sweep(draws, {"n": [10, 20]}, [0, 1]) for _ in range(2))
    pd.testing.assert_frame_equal(first, second, check_exact=True)


@pytest.mark.parametrize("shuffle", range(3))
def test_a_measurement_is_the_same_in_any_order_and_any_part_of_the_grid(shuffle):
    points = [{"n": n, "init": init} for n in (1, 2, 3) for init in ("lecun", "he")]
    everything = quiet_sweep(uniform, points, [0, 1, 2]).set_index(["n", "init", "seed"])["value"]
    generator = random.Random(shuffle)
    some, seeds = generator.sample(points, 4), generator.sample([0, 1, 2], 2)
    part = quiet_sweep(uniform, some, seeds).set_index(["n", "init", "seed"])["value"]
    assert part.to_dict() == everything[part.index].to_dict()


def test_the_order_of_the_names_in_a_point_changes_nothing():
    one = quiet_sweep(uniform, [{"n": 1, "d": 2}], [0])
    other = quiet_sweep(uniform, [{"d": 2, "n": 1}], [0])
    assert one["value"].item() == other["value"].item()


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("integer", [np.int64, np.int32, np.uint8])
def test_numpy_numbers_stand_for_the_same_points_and_seeds_as_python_ones(integer):
    ours = quiet_sweep(uniform, {"n": [3, 4], "c": [0.5]}, [0, 1])
    theirs = quiet_sweep(
        uniform,
        {"n": [integer(3), integer(4)], "c": [np.float64(0.5)]},
        [integer(0), integer(1)],
    )
    assert theirs["value"].tolist() == ours["value"].tolist()
    arrays = quiet_sweep(uniform, {"n": np.array([3, 4]), "c": [0.5]}, np.arange(2))
    assert arrays["value"].tolist() == ours["value"].tolist()


def test_every_point_and_every_seed_draws_its_own_numbers():
    table = quiet_sweep(uniform, {"n": range(15), "init": ["lecun", "he"]}, range(4))
    assert table["value"].nunique() == len(table) == 120


def test_draws_of_neighbouring_points_and_seeds_are_uncorrelated():
    values = quiet_sweep(uniform, {"n": range(25)}, range(40))["value"].to_numpy().reshape(25, 40)
    centred = values - values.mean()
    # variance 1/12 a draw: four standard errors of a mean of products
    along_points = (centred[1:] * centred[:-1]).mean() * 12
    along_seeds = (centred[:, 1:] * centred[:, :-1]).mean() * 12
    assert abs(along_points) < 4 / np.sqrt(24 * 40)
    assert abs(along_seeds) < 4 / np.sqrt(25 * 39)


def test_the_progress_bar_shows_when_asked_for_and_changes_no_number(capsys):
    silent = sweep(draws, {"n": [1, 2]}, [0], progress=False)
    assert capsys.readouterr().err == ""
    shown = sweep(draws, {"n": [1, 2]}, [0])
    assert "2/2" in capsys.readouterr().err
    pd.testing.assert_frame_equal(shown, silent, check_exact=True)


# --- fit_exponent ---------------------------------------------------------------------------------


def power_law(slope, noise, seeds=range(10), sizes=(10, 20, 40, 80), rng=0):
    """y = 3 n^slope, times a noise; every seed has its own prefactor."""
    rng = np.random.default_rng(rng)
    rows = [
        {"seed": seed, "n": n, "y": 3 * n**slope * np.exp(noise * rng.normal())}
        for seed in seeds
        for n in sizes
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("slope", [-0.5, 0.0, 1.0, 2.3])
def test_an_exact_power_law_has_its_exponent_and_an_interval_of_no_width(slope):
    np.testing.assert_allclose(fit_exponent(power_law(slope, 0), "n", "y"), 3 * [slope], atol=1e-12)


def test_a_different_prefactor_for_every_seed_does_not_matter():
    table = power_law(0.7, 0)
    table["y"] *= 10.0 ** table["seed"]
    np.testing.assert_allclose(fit_exponent(table, "n", "y"), 3 * [0.7], rtol=1e-12)


def test_the_estimate_is_the_mean_of_the_least_squares_slopes_of_the_seeds():
    table = power_law(1.0, 0.3)
    slopes = [
        np.polyfit(np.log(rows["n"]), np.log(rows["y"]), 1)[0] for _, rows in table.groupby("seed")
    ]
    fit = fit_exponent(table, "n", "y")
    assert fit.slope == pytest.approx(np.mean(slopes), rel=1e-12)
    assert min(slopes) < fit.low < fit.slope < fit.high < max(slopes)


def test_the_interval_contains_the_truth_in_about_nineteen_of_twenty_tables():
    fits = [fit_exponent(power_law(1.0, 0.2, rng=i), "n", "y") for i in range(100)]
    covered = sum(fit.low <= 1.0 <= fit.high for fit in fits)
    # nominally 95; a bootstrap over 10 seeds is somewhat too narrow
    assert 80 <= covered <= 99


def test_more_confidence_gives_a_wider_interval():
    table = power_law(1.0, 0.3)
    wide, narrow = (fit_exponent(table, "n", "y", confidence=c) for c in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.slope < narrow.high < wide.high


def test_the_same_table_always_gives_the_same_interval():
    table = power_law(1.0, 0.3)
    assert fit_exponent(table, "n", "y") == fit_exponent(table, "n", "y")


def test_seeds_measured_at_different_sizes_give_a_slope_each():
    table = power_law(1.5, 0)
    part = table[(table["seed"] > 4) | (table["n"] < 40)]
    np.testing.assert_allclose(fit_exponent(part, "n", "y"), 3 * [1.5], rtol=1e-12)


def test_an_exponent_prints_as_slope_and_interval():
    assert str(Exponent(0.987, 0.91, 1.066)) == "0.99 [0.91, 1.07]"


# --- verdict --------------------------------------------------------------------------------------


def test_a_verdict_prints_one_line_and_returns_that_the_claim_holds(capsys):
    assert verdict("the slope is 1", predicted=1, measured=0.98765, holds=True) is True
    assert capsys.readouterr().out == "holds: the slope is 1. Predicted 1; measured 0.988.\n"


@pytest.mark.usefixtures("without_type_checks")
def test_a_verdict_that_fails_says_so_and_returns_false(capsys):
    holds = verdict("claim", predicted="> 0", measured=-1e-5, holds=np.False_, source="Theorem 1")
    assert holds is False
    assert capsys.readouterr().out == "FAILS: claim (Theorem 1). Predicted > 0; measured -1e-05.\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Exponent(1, 0.9, 1.12), "1.00 [0.90, 1.12]"),
        ([1.23456, 2], "1.23, 2"),
        (np.array([0.1, 1234567.0]), "0.1, 1.23e+06"),
        (pd.Series([0.5, 0.25]), "0.5, 0.25"),
        (np.float64(2 / 3), "0.667"),
        (jnp.asarray(2 / 3), "0.667"),
    ],
)
def test_numbers_of_a_verdict_are_shown_to_three_figures(value, text, capsys):
    verdict("claim", predicted=value, measured=value, holds=True)
    assert capsys.readouterr().out == f"holds: claim. Predicted {text}; measured {text}.\n"


@pytest.mark.usefixtures("without_type_checks")
def test_verdicts_are_recorded_one_json_object_a_line(tmp_path, monkeypatch):
    file = tmp_path / "verdicts.jsonl"
    monkeypatch.setenv("NTK_UTILS_VERDICTS", str(file))
    verdict("λ_min > 0", predicted=1, measured=[0.5, 1 / 3], holds=np.True_, source="Theorem 1")
    verdict("another", predicted="none", measured=2, holds=False)
    first, second = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    assert first == {
        "claim": "λ_min > 0",
        "predicted": "1",
        "measured": "0.5, 0.333",
        "holds": True,
        "source": "Theorem 1",
    }
    assert second["holds"] is False
    assert second["source"] == ""


def test_without_the_environment_variable_no_verdict_is_recorded(tmp_path, monkeypatch):
    monkeypatch.delenv("NTK_UTILS_VERDICTS", raising=False)
    monkeypatch.chdir(tmp_path)
    verdict("claim", predicted=1, measured=1, holds=True)
    assert list(tmp_path.iterdir()) == []
