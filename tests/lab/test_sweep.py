import random
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from ntk_utils import sweep


def draws(n, key):
    """Two numbers that depend on the point and on the key."""
    a, b = jax.random.normal(key, (2,))
    return {"a": n + float(a), "b": float(b)}


def uniform(key, **_):
    return jax.random.uniform(key)


def quiet_sweep(measure, grid, seeds):
    return sweep(measure, grid, seeds, progress=False)


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


def test_the_same_draws_are_made_at_all_points_of_a_seed_if_asked_for():
    table = sweep(uniform, {"n": [1, 2, 3]}, range(2), same_draws=True, progress=False)
    by_seed = table.groupby("seed")["value"]
    assert by_seed.nunique().tolist() == [1, 1]
    assert table["value"].nunique() == 2
    assert not set(table["value"]) & set(quiet_sweep(uniform, {"n": [1, 2, 3]}, range(2))["value"])


def test_a_cache_tells_the_same_draws_from_independent_ones(tmp_path):
    def measured(**options):
        return sweep(uniform, {"n": [1, 2]}, [0], cache=tmp_path, progress=False, **options)

    independent, same = measured(), measured(same_draws=True)
    assert independent["value"].nunique() == 2
    assert same["value"].nunique() == 1
    pd.testing.assert_frame_equal(measured(), independent)
    pd.testing.assert_frame_equal(measured(same_draws=True), same)


def test_draws_of_neighbouring_points_and_seeds_are_uncorrelated():
    values = quiet_sweep(uniform, {"n": range(25)}, range(40))["value"].to_numpy().reshape(25, 40)
    centred = values - values.mean()
    # variance 1/12 a draw: four standard errors of a mean of products
    along_points = (centred[1:] * centred[:-1]).mean() * 12
    along_seeds = (centred[:, 1:] * centred[:, :-1]).mean() * 12
    assert abs(along_points) < 4 / np.sqrt(24 * 40)
    assert abs(along_seeds) < 4 / np.sqrt(25 * 39)


def test_the_last_digits_of_a_float_which_differ_between_processors_do_not_change_the_draws():
    values = [np.exp(0.7), np.nextafter(np.exp(0.7), 0), np.exp(0.7) + 1e-9]
    drawn = [quiet_sweep(uniform, [{"a": [v, 1], "b": v}], [0]).value.item() for v in values]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_progress_bar_shows_when_asked_for_and_changes_no_number(capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE")  # of these tests
    silent = sweep(draws, {"n": [1, 2]}, [0], progress=False)
    assert capsys.readouterr().err == ""
    shown = sweep(draws, {"n": [1, 2]}, [0])
    assert "2/2" in capsys.readouterr().err
    pd.testing.assert_frame_equal(shown, silent, check_exact=True)


def test_the_environment_can_switch_the_progress_bar_off(capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    sweep(draws, {"n": [1]}, [0])
    assert capsys.readouterr().err == ""


# --- what a measurement may return ----------------------------------------------------------------


class Pair(NamedTuple):
    small: float
    parts: tuple[float, ...]


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    "parts",
    [(3.0, 1.5), [3, 1.5], np.array([3.0, 1.5]), jnp.array([3.0, 1.5]), pd.Series([3.0, 1.5])],
    ids=lambda parts: type(parts).__name__,
)
def test_a_sequence_under_one_name_becomes_a_column_for_each_of_its_numbers(parts):
    table = quiet_sweep(lambda n, key: {"b": n, "a": parts}, {"n": [7]}, [0])  # noqa: ARG005
    assert list(table) == ["n", "seed", "b", "a_0", "a_1"]
    assert table.loc[0].tolist() == [7, 0, 7, 3.0, 1.5]


def test_a_named_tuple_is_a_mapping_from_its_fields():
    table = quiet_sweep(lambda n, key: Pair(n / 2, (n, -n)), {"n": [4, 2]}, [0])  # noqa: ARG005
    assert list(table) == ["n", "seed", "small", "parts_0", "parts_1"]
    assert table.iloc[:, 2:].to_numpy().tolist() == [[2, 4, -4], [1, 2, -2]]


def test_points_with_sequences_of_different_lengths_leave_the_rest_missing():
    table = quiet_sweep(lambda n, key: {"a": np.ones(n)}, {"n": [1, 2]}, [0])  # noqa: ARG005
    assert table["a_0"].tolist() == [1, 1]
    assert table["a_1"].isna().tolist() == [True, False]


def test_a_cache_gives_the_columns_of_sequences_and_named_tuples_back(tmp_path):
    def measure(n, key):
        return Pair(n / 3, jax.random.normal(key, (n,)))

    first, again = (
        sweep(measure, {"n": [2]}, [0, 1], cache=tmp_path, progress=False) for _ in range(2)
    )
    assert list(first) == ["n", "seed", "small", "parts_0", "parts_1"]
    pd.testing.assert_frame_equal(first, again, check_exact=True)
