import numpy as np
import pandas as pd
import pytest

from ntk_utils import Exponent, fit_exponent


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


@pytest.mark.parametrize(
    ("low", "high", "inside"),
    [
        (0.8, 1.2, True),
        (0.75, 1.25, True),  # the ends belong to it
        (0.74, 1.2, False),
        (0.8, 1.26, False),
        (-5.0, 1.1, False),
        (0.9, 5.0, False),
    ],
)
def test_within_asks_the_whole_interval_to_lie_in_the_band(low, high, inside):
    assert Exponent(1.0, low, high).within(1.0, 0.25) is inside
    assert Exponent(3.0, low + 2, high + 2).within(1.0, 0.25) is False


@pytest.mark.parametrize(("low", "holds"), [(-0.26, False), (-0.25, True), (0.1, True)])
def test_at_least_asks_the_lower_end_and_at_most_the_upper_one(low, holds):
    # the point estimate alone would pass in every case
    rising = Exponent(0.5, low, 0.9)
    assert rising.at_least(-0.25) is holds
    falling = Exponent(-0.5, -0.9, -low)
    assert falling.at_most(0.25) is holds


@pytest.mark.parametrize("bound", [-0.3, 0.0, 0.4])
def test_an_interval_that_straddles_a_bound_lies_neither_above_nor_below_it(bound):
    straddling = Exponent(bound + 0.05, bound - 0.1, bound + 0.2)
    assert not straddling.at_least(bound)
    assert not straddling.at_most(bound)
    point = Exponent(bound, bound, bound)
    assert point.at_least(bound)
    assert point.at_most(bound)
    assert point.within(bound, 1e-12)


@pytest.mark.parametrize("slope", [-1.0, 0.5])
def test_a_fit_is_judged_by_its_interval_at_two_levels_of_noise(slope):
    quiet, noisy = (fit_exponent(power_law(slope, noise), "n", "y") for noise in (0.02, 2.0))
    assert quiet.within(slope, 0.1)
    assert quiet.at_least(slope - 0.1)
    assert quiet.at_most(slope + 0.1)
    assert not noisy.within(slope, 0.1)
    assert not (noisy.at_least(slope - 0.1) and noisy.at_most(slope + 0.1))
