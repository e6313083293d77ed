"""The published figures on minimum over-parameterization: the grids, and what a trial measures."""

import math
import sys

import jax
import numpy as np
import pandas as pd
import pytest

from ntk_utils import adam, bombari22, empirical_ntk, gaussian, init_params, layer_ntks


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
    assert few["log10 loss"] < -3
    assert many["log10 loss"] > -1


def test_the_command_writes_both_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(bombari22, "EIGENVALUES", [{"n_samples": 10, "d": 5}])
    monkeypatch.setattr(bombari22, "FITS", [{"n_samples": 10, "d": 5}])
    folders = ["--cache", str(tmp_path / "build"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bombari22", "--trials", "2", "--workers", "1", *folders])
    bombari22.main()
    eigenvalues = pd.read_csv(tmp_path / "bombari22_eigenvalues.csv")
    assert eigenvalues.columns.tolist()[:3] == ["n_samples", "d", "full mean"]
    assert "log10 loss mean" in pd.read_csv(tmp_path / "bombari22_fits.csv")
