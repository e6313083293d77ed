"""The published figures on minimum over-parameterization: the grids, and what a trial measures."""

import itertools
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ntk_utils import (
    adam,
    bombari22,
    empirical_ntk,
    gaussian,
    init_params,
    layer_ntks,
    rounding_error,
)

DATA = Path(__file__).parents[1] / "notebooks" / "data"


def test_the_eigenvalues_are_at_the_60_points_of_figure_1():
    grid = pd.DataFrame(bombari22.EIGENVALUES)
    assert grid.groupby("n_samples").size().to_dict() == {1000: 20, 2000: 20, 3000: 20}
    assert set(grid.d**2) >= {204304, 504100, 954529}
    assert (grid.d.min(), grid.d.max()) == (int(math.sqrt(5000)), int(math.sqrt(955_000)))


def test_the_networks_are_of_constant_width_and_the_last_layer_is_not_divided_by_it():
    w_1, w_2, w_3, w_4 = init_params(bombari22.constant_width(300, 4), jax.random.key(0))
    assert [w.shape for w in (w_1, w_2, w_3, w_4)] == [(300, 300)] * 3 + [(300, 1)]
    for w in (w_1, w_2, w_3):
        assert np.var(w) * 300 == pytest.approx(1, rel=0.05)
    assert np.var(w_4) == pytest.approx(1, rel=0.3)


def test_with_a_width_all_hidden_layers_have_it_and_variances_of_one_over_their_inputs():
    params = init_params(bombari22.constant_width(100, 4, width=400), jax.random.key(0))
    assert [w.shape for w in params] == [(100, 400), (400, 400), (400, 400), (400, 1)]
    expected = [1 / 100, 1 / 400, 1 / 400, 1]
    for w, variance in zip(params, expected, strict=True):
        assert np.var(w) == pytest.approx(variance, rel=5 / math.sqrt(w.size))


@pytest.mark.parametrize("activation", [jax.nn.sigmoid, jax.numpy.tanh])
def test_an_eigenvalue_is_that_of_the_whole_kernel_and_below_its_upper_bound(activation):
    key_x, key_w = jax.random.split(jax.random.key(3))
    params = init_params(bombari22.constant_width(12, 3), key_w)
    x = gaussian(key_x, 30, 12)
    k = np.asarray(empirical_ntk(params, x, activation=activation))
    block = np.asarray(layer_ntks(params, x, activation=activation))[1]
    found = bombari22.eigenvalues(30, 12, key=jax.random.key(3), activation=activation)
    assert found["full"] == pytest.approx(np.linalg.eigvalsh(k)[0], rel=1e-8)
    assert found["block"] == pytest.approx(np.linalg.eigvalsh(block)[0], rel=1e-8)
    assert found["diagonal"] == pytest.approx(k.diagonal().min(), rel=1e-12)
    assert found["block"] < found["full"] < found["diagonal"]


def test_the_roundings_are_those_of_the_kernel_and_of_the_term_of_w_2():
    params = init_params(bombari22.constant_width(12, 3, width=5), jax.random.key(0))
    x = gaussian(jax.random.key(1), 30, 12)
    terms = np.asarray(layer_ntks(params, x, activation=jnp.tanh))
    found = bombari22.with_rounding(params, x, jnp.tanh)
    expected = [rounding_error(terms.sum(axis=0)), rounding_error(terms[1])]
    roundings = [found["full rounding"], found["block rounding"]]
    np.testing.assert_allclose(roundings, expected, rtol=1e-12)  # and no absolute tolerance
    assert abs(found["block"]) <= found["block rounding"]  # 25 weights for 30 samples
    assert found["full"] > found["full rounding"]


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (jax.nn.identity, 2 * 50**2 + 50),  # all four moments are 1
        (jnp.square, (4 + 3) * 12 * 50**2 + 27 * 50),  # E g⁴ = 3, E (2g)² = 4, then with 3 g²
    ],
    ids=["identity", "square"],
)
def test_the_mean_diagonal_is_that_of_moments_by_hand(activation, expected):
    assert bombari22.mean_diagonal(50, activation) == pytest.approx(expected, rel=1e-12)


def test_the_mean_diagonal_is_the_mean_squared_gradient_over_many_networks():
    d = 80

    def squared_gradient(key):
        key_x, *keys = jax.random.split(key, 4)
        shapes, scales = ((d, d), (d, d), (d,)), (d**-0.5, d**-0.5, 1)
        draws = zip(keys, shapes, scales, strict=True)
        params = [scale * jax.random.normal(key, shape) for key, shape, scale in draws]
        x = jax.random.normal(key_x, (d,))
        f = lambda w: jax.nn.sigmoid(jax.nn.sigmoid(x @ w[0]) @ w[1]) @ w[2]  # noqa: E731
        return sum((g**2).sum() for g in jax.grad(f)(params))

    keys = jax.random.split(jax.random.key(0), 1000)
    draws = np.asarray(jax.lax.map(squared_gradient, keys, batch_size=50))
    assert draws.std() / draws.mean() / math.sqrt(1000) < 0.005
    assert bombari22.mean_diagonal(d) == pytest.approx(draws.mean(), rel=0.015)


def test_a_fit_is_the_mean_squared_error_at_which_adam_ends():
    key_x, key_y, key_w = jax.random.split(jax.random.key(1), 3)
    params = init_params(bombari22.constant_width(6, 4), key_w)
    x, y = gaussian(key_x, 40, 6), np.asarray(gaussian(key_y, 40, 1))[:, 0]
    run = adam(params, x, y, learning_rate=1 / (10 * math.sqrt(40)))
    found = bombari22.fit(40, 6, key=jax.random.key(1))
    expected = math.log10(np.mean(2 * run.losses[-100:] / 40))
    assert found["log10 loss"] == pytest.approx(expected, abs=1e-6)
    assert found["steps"] == len(run.losses) - 1


def test_few_samples_are_fitted_and_many_are_not():
    few, many = (bombari22.fit(n, 8, key=jax.random.key(0)) for n in (20, 400))
    assert few["log10 loss"] < -2
    assert many["log10 loss"] > -1


def test_a_fit_of_a_width_is_that_of_the_same_samples_and_labels_by_other_hidden_layers():
    key_x, key_y, key_w = jax.random.split(jax.random.key(1), 3)
    params = init_params(bombari22.constant_width(6, 4, width=3), key_w)
    x, y = gaussian(key_x, 40, 6), np.asarray(gaussian(key_y, 40, 1))[:, 0]
    run = adam(params, x, y)
    found = bombari22.fit(40, 6, 3, key=jax.random.key(1))
    expected = math.log10(np.mean(2 * run.losses[-100:] / 40))
    assert found["log10 loss"] == pytest.approx(expected, abs=1e-6)
    assert found["steps"] == len(run.losses) - 1


def test_without_the_rule_wide_layers_go_on_to_fit_what_it_ends_before():
    key = jax.random.key(1)
    with_rule, without = (bombari22.fit(40, 6, 20, rule, key=key) for rule in (True, False))
    assert without["log10 loss"] < -8 < -6 < with_rule["log10 loss"]
    assert with_rule["steps"] < without["steps"] < 10_000


def test_a_fit_ends_at_the_largest_number_of_steps():
    found = bombari22.fit(40, 6, 20, max_steps=200, key=jax.random.key(1))
    assert found["steps"] == 200


# --- what is read off the tables ------------------------------------------------------------------


def fits_of(columns):
    """A table of Figure 2 in the wrong order, from log10 of the loss at N = 100, 200, 400 by d."""
    n = (100, 200, 400)
    tables = [
        pd.DataFrame({"n_samples": n, "d": d, "log10 loss mean": c}) for d, c in columns.items()
    ]
    return pd.concat(tables).iloc[::-1]


def test_the_largest_fitted_is_where_the_loss_last_crosses_the_level():
    columns = {
        5: (-3.0, -2.0, -1.0),  # none
        7: (-9.0, -5.0, -1.0),  # three quarters of the way from 100 to 200
        9: (-9.0, -8.0, -4.0),  # the middle between 200 and 400
        11: (-9.0, -2.0, -8.0),  # the last: no end in sight
        13: (-2.0, -6.0, -2.0),  # met exactly, and not below
        15: (-9.0, -9.0, -9.0),
    }
    found = bombari22.largest_fitted(fits_of(columns), -6.0)
    assert found.index.tolist() == list(columns)
    assert found.index.name == "d"
    np.testing.assert_allclose(found, [np.nan, 175, 300, np.nan, 200, np.nan], rtol=1e-12)


def test_the_local_exponents_are_those_of_power_laws_and_change_where_these_do():
    d = np.arange(10, 210, 10)
    kink = d[4] ** 2
    laws = {1000: d**3.0, 2000: np.where(d**2 <= kink, d**2.0, d**4.0 / kink)}
    tables = [pd.DataFrame({"n_samples": n, "d": d, "full mean": y}) for n, y in laws.items()]
    found = bombari22.local_exponents(pd.concat(tables).sample(frac=1, random_state=0))
    assert found.index.tolist() == [(10 * i) ** 2 for i in (2, 5, 11, 20)]
    np.testing.assert_allclose(found[1000], 1.5, rtol=1e-12)
    np.testing.assert_allclose(found[2000], [1, 1, 2, 2], rtol=1e-12)


def eigenvalues_of(law, n_samples=(100, 400, 900)):
    """A table of Figure 1 with λ_min/d² = law[d²/N], the rest as simple as can be."""
    points = itertools.product(n_samples, law)
    rows = [(n, math.isqrt(q * n), q * n * law[q]) for n, q in points]
    table = pd.DataFrame(rows, columns=["n_samples", "d", "full mean"])
    block, diagonal = table["full mean"] / 10, 20.0 * table.d**2
    return table.assign(**{"full sd": 1.0, "block mean": block, "diagonal mean": diagonal})


def test_a_function_of_d_squared_over_n_has_no_spread_there_and_some_at_the_same_d_squared():
    law = {1: 1.0, 4: 3.0, 9: 2.0, 36: 5.0, 144: 7.0, 324: 8.0}
    found = bombari22.spreads(eigenvalues_of(law).iloc[::-1], (20, 36, 144))
    assert found.index.tolist() == [20, 36, 144]
    np.testing.assert_allclose(found["same d²/N"], 1, rtol=1e-12)
    # at d² = 3600 of law[36], law[9], law[4]; at d² = 14400 of law[144], law[36], law[16]
    at_16 = 2.0 * (5 / 2) ** (math.log(16 / 9) / math.log(36 / 9))
    np.testing.assert_allclose(found["same d²"].iloc[1:], [5 / 2, 7 / at_16], rtol=1e-12)


def test_a_function_of_d_squared_alone_has_a_spread_at_the_same_d_squared_over_n():
    table = eigenvalues_of({q: 1.0 for q in (1, 4, 16, 64)})
    table["full mean"] = table.d**4.0
    found = bombari22.spreads(table, (16,)).iloc[0]
    assert found["same d²"] == pytest.approx(1, rel=1e-12)
    assert found["same d²/N"] == pytest.approx(9, rel=1e-12)


def test_the_published_values_are_at_measured_points_and_within_a_quarter_of_them():
    measured = pd.read_csv(DATA / "bombari22_eigenvalues.csv").query("n_samples == 1000")
    measured = measured.set_index(measured.d**2)["full mean"]
    assert len(bombari22.PUBLISHED) == 3
    for size, value in bombari22.PUBLISHED.items():
        assert value == pytest.approx(measured[size], rel=0.25)


# --- the drawings ---------------------------------------------------------------------------------


@pytest.fixture
def figure():
    with mpl.rc_context({"backend": "Agg"}):
        figure = plt.figure()
        yield figure
        plt.close(figure)


def by_label(ax):
    """The curves of the axes as lists of points."""
    return {line.get_label(): line.get_xydata().tolist() for line in ax.lines}


def test_figure_1_is_drawn_as_published_and_beside_it_per_d_squared(figure):
    axes = figure.subplots(1, 2)
    table = eigenvalues_of({10: 2.0, 40: 3.0}, n_samples=(1000, 4000))
    assert bombari22.draw_eigenvalues(axes, table) is axes
    left, right = map(by_label, axes)
    assert left == {
        "$N=1000$": [[1e4, 2e4], [4e4, 12e4]],
        "$N=4000$": [[4e4, 8e4], [16e4, 48e4]],
        "left: $W_2$ alone, $N=1000$": [[1e4, 2e3], [4e4, 12e3]],
        "published": [list(point) for point in bombari22.PUBLISHED.items()],
    }
    same = [[10, 2], [40, 3]]
    diagonal = {r"right: smallest $\bar K_{ii}$": [[10, 20], [40, 20]]}
    assert right == {"$N=1000$": same, "$N=4000$": same} | diagonal
    scales = [(ax.get_xscale(), ax.get_yscale()) for ax in axes]
    assert scales == [("linear", "linear"), ("log", "log")]
    for ax, unit in zip(axes, (1, 1e4), strict=True):  # sd is 1, first d² is 1e4
        corners = ax.collections[0].get_paths()[0].vertices
        of_first = corners[corners[:, 0] == corners[:, 0].min(), 1]
        assert np.ptp(of_first) * unit == pytest.approx(2, rel=1e-6)


def test_figure_2_is_drawn_with_both_boundaries_and_the_largest_n_fitted(figure):
    ax = figure.subplots()
    table = fits_of({20: (-9.0, -5.0, -1.0), 30: (-9.0, -8.0, -4.0), 40: (-9.0, -9.0, -8.0)})
    assert bombari22.draw_fits(ax, table, -6.0) is ax
    curves = by_label(ax)
    assert curves["as many weights"] == [[400, 1220], [900, 2730], [1600, 4840]]
    slope = (11_000 - 400) / (15_000 - 400)
    published = [[t, pytest.approx(400 + slope * (t - 400))] for t in (400, 900, 1600)]
    assert curves["published, by eye"] == published
    np.testing.assert_allclose(
        curves["largest $N$ fitted"], [[400, 175], [900, 300], [1600, np.nan]]
    )
    (mesh,) = ax.collections
    np.testing.assert_array_equal(mesh.get_array(), [[-9, -9, -9], [-5, -8, -9], [-1, -4, -8]])
    assert ax.get_ylim() == (0, 500)
    assert "log" in figure.axes[1].get_ylabel()  # the colour bar


def test_the_command_writes_both_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(bombari22, "EIGENVALUES", [{"n_samples": 10, "d": 5}])
    monkeypatch.setattr(bombari22, "FITS", [{"n_samples": 10, "d": 5}])
    folders = ["--cache", str(tmp_path / "build"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bombari22", "--trials", "2", "--workers", "1", *folders])
    bombari22.main()
    eigenvalues = pd.read_csv(tmp_path / "bombari22_eigenvalues.csv")
    assert eigenvalues.columns.tolist()[:3] == ["n_samples", "d", "full mean"]
    assert "log10 loss mean" in pd.read_csv(tmp_path / "bombari22_fits.csv")
