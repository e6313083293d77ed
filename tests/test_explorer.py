import io
import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from threadpoolctl import threadpool_info, threadpool_limits

import ntk_utils
from ntk_utils import explorer, smallest_eigenvalue, use_style, verified_lower_bound
from ntk_utils.explorer import Settings
from ntk_utils.kernels import empirical_ntk

SMALL = {"n": 12, "d": 6, "hidden": (30, 8)}
TABLE = np.random.default_rng(0).normal(size=(20, 5))
for_each_view = pytest.mark.parametrize("view", list(explorer.VIEWS))


@pytest.fixture(autouse=True)
def _style():
    use_style()


def lines_of(figure):
    """The drawn lines by their labels."""
    (ax,) = figure.axes
    return {line.get_label(): line.get_xydata() for line in ax.get_lines()}


def texts_of(figure):
    (ax,) = figure.axes
    return [text.get_text() for text in ax.texts] + [ax.get_title()]


@for_each_view
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data": "gaussian", "activation": "tanh", "init": "lecun"},
        {"data": "digits", "activation": "smoothed leaky relu"},
        {"data": TABLE, "seed": 3},
        {"n": 2, "d": 1, "hidden": (1,)},
        {"n": 30, "hidden": (4, 4, 4, 4, 4)},
    ],
)
def test_every_view_draws_wherever_the_sliders_stand(view, changes):
    picture = imread(io.BytesIO(explorer.png(explorer.draw(view, Settings(**SMALL | changes)))))
    assert picture.shape == (340, 750, 4)
    assert len(np.unique(picture.reshape(-1, 4), axis=0)) > 20


@for_each_view
def test_a_picture_depends_on_the_settings_alone_and_on_each_that_the_view_shows(view):
    draw = lambda **changes: explorer.png(explorer.draw(view, Settings(**SMALL | changes)))  # noqa: E731
    assert draw() == draw()
    assert draw(hidden=(8, 30)) != draw()
    assert draw(n=16) != draw()
    if view != "architecture":
        for change in ({"seed": 1}, {"init": "lecun"}, {"activation": "tanh"}):
            assert draw(**change) != draw(), change


@for_each_view
@pytest.mark.parametrize("data", [*explorer.DATA, "csv"])
def test_the_three_lines_draw_the_same_picture(view, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savetxt("mine.csv", TABLE, delimiter=",")
    path = "mine.csv" if data == "csv" else None
    settings = Settings(**SMALL | {"data": explorer.read(path) if path else data, "seed": 5})
    *first, last = explorer.code(view, settings, path=path).splitlines()
    assert len(first) == 2
    names = {}
    exec("\n".join(first), names)
    assert explorer.png(eval(last, names)) == explorer.png(explorer.draw(view, settings))


def test_the_bounds_view_adds_what_is_proved_for_relu_networks_alone():
    first, second = (
        list(texts_of(figure)) for figure in explorer.frames("bounds", Settings(**SMALL))
    )
    (proved,) = set(second) - set(first)
    measured, _, lower = proved.partition(", proved ≥ ")
    assert measured in first
    _, x, params = explorer.drawn(Settings(**SMALL))
    assert float(lower) <= verified_lower_bound(params, x) < 1.01 * float(lower)
    assert len(list(explorer.frames("bounds", Settings(**SMALL, activation="tanh")))) == 1


@pytest.mark.parametrize("activation", list(explorer.ACTIVATIONS))
def test_the_bounds_view_writes_the_measured_value_between_its_bounds(activation):
    settings = Settings(**SMALL, activation=activation)
    network, x, params = explorer.drawn(settings)
    k = empirical_ntk(params, x, activation=network.activation)
    texts = texts_of(explorer.draw("bounds", settings))
    measured = f"{smallest_eigenvalue(k):.3g}"
    assert any(text.partition(",")[0] == measured for text in texts)
    assert f"{np.diagonal(k).min():.3g}" in texts
    assert ("λₘᵢₙ of large layers" in texts) == (activation == "relu")


def test_the_spectrum_is_that_of_the_kernel_and_what_is_rounding_is_left_out():
    settings = Settings(n=30, d=4, hidden=(3,))  # 15 weights
    _, x, params = explorer.drawn(settings)
    figure = explorer.draw("spectrum", settings)
    drawn = lines_of(figure)["K̄ of this draw"][:, 1]
    eigenvalues = np.linalg.eigvalsh(empirical_ntk(params, x))[::-1]
    assert np.isfinite(drawn).sum() <= 15
    np.testing.assert_allclose(drawn[:10], eigenvalues[:10], rtol=1e-9)
    assert "smallest eigenvalue: 0, up to rounding" in texts_of(figure)


def test_where_all_is_0_the_figure_says_so_and_a_singular_limit_ends_where_rounding_begins():
    dead = Settings(n=2, d=1, hidden=(1,), seed=dead_seed())
    assert "smallest eigenvalue: 0, up to rounding" in texts_of(explorer.draw("spectrum", dead))
    assert texts_of(explorer.draw("bounds", dead)).count("0, up to rounding") >= 3
    repeated = Settings(data=np.repeat(TABLE[:5], 2, axis=0), n=10, hidden=(30,))
    limit = lines_of(explorer.draw("spectrum", repeated))["if all layers were large"][:, 1]
    assert np.isfinite(limit).sum() == 5


def test_parts_of_the_smallest_eigenvalue_sum_to_it_and_a_narrow_layer_has_no_factor():
    settings = Settings(**SMALL)
    _, x, params = explorer.drawn(settings)
    drawn = lines_of(explorer.draw("layer terms", settings))
    parts = drawn["its part of λₘᵢₙ(K̄)"][:, 1]
    assert parts.sum() == pytest.approx(smallest_eigenvalue(empirical_ntk(params, x)), rel=1e-9)
    assert np.isnan(drawn["a = λₘᵢₙ(Fₖ Fₖᵀ)"][:, 1]).tolist() == [True, False, True]


def test_gradient_descent_starts_at_its_loss_keeps_to_a_frozen_kernel_if_wide_and_not_if_narrow():
    gap = {}
    for width in (20, 4000):
        figure = explorer.draw("training", Settings(n=12, d=6, hidden=(width,)))
        drawn = lines_of(figure)
        measured, frozen = drawn["measured"][:, 1], drawn["if K̄ did not change"][:, 1]
        slowest = drawn["(1 - λₘᵢₙ/λₘₐₓ)²ᵗ"][:, 1]
        assert len(measured) == len(frozen) == 61
        assert measured[0] == slowest[0] == 1
        assert frozen[0] == pytest.approx(1, rel=1e-12)
        assert (frozen <= slowest * (1 + 1e-9)).all()
        assert (np.diff(measured) < 0).all()
        gap[width] = np.abs(np.log(measured / frozen)).max()
    assert gap[4000] < 0.05 < gap[20]


def test_the_figure_of_training_grows_and_the_others_come_at_once():
    lengths = [
        len(lines_of(figure).get("measured", ()))
        for figure in explorer.frames("training", Settings(**SMALL))
    ]
    assert lengths == sorted(set(lengths))
    assert len(lengths) > 3
    assert lengths[-1] == 61
    for view in explorer.VIEWS.keys() - {"training", "bounds"}:
        assert len(list(explorer.frames(view, Settings(**SMALL)))) == 1


def test_nothing_is_computed_before_a_figure_is_asked_for(monkeypatch):
    monkeypatch.setattr(explorer, "drawn", lambda _: pytest.fail("computed"))
    explorer.frames("bounds", Settings(**SMALL))


def test_one_thread_of_blas_computes_a_figure_and_the_others_are_there_again_after_it(monkeypatch):
    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    monkeypatch.setitem(explorer.VIEWS, "bounds", lambda _: (threads() for _ in range(2)))
    during = []
    with threadpool_limits(2, "blas"):
        for figure in explorer.frames("bounds", Settings(**SMALL)):
            during.append(figure)
            assert threads() == {2}
    assert during == [{1}, {1}]


def test_a_figure_shows_itself_in_a_notebook_though_pyplot_does_not_know_it():
    figure = explorer.draw("architecture", Settings(**SMALL))
    assert isinstance(figure, Figure)
    assert figure._repr_png_() == explorer.png(figure)


def test_samples_from_a_file_are_centred_and_on_the_sphere(tmp_path):
    np.savetxt(tmp_path / "mine.csv", TABLE + 7, delimiter=",")
    x = explorer.read(tmp_path / "mine.csv")
    centred = TABLE - TABLE.mean(axis=0)
    expected = np.sqrt(5) * centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(x, expected, rtol=1e-9)
    content = io.BytesIO((tmp_path / "mine.csv").read_bytes())
    np.testing.assert_array_equal(explorer.read(content), x)


def test_the_lines_say_the_dimension_only_where_it_is_chosen():
    assert "d=7" in explorer.code("bounds", Settings(d=7))
    assert "d=" not in explorer.code("bounds", Settings(data="digits")).replace("seed=", "")


def test_given_samples_and_digits_have_their_own_dimension():
    assert Settings(data=TABLE, n=12).network.widths[0] == 5
    assert Settings(data="digits").network.widths[0] == 64
    assert Settings(d=7).network.widths[0] == 7
    _, x, _ = explorer.drawn(Settings(data=TABLE, n=12))
    np.testing.assert_array_equal(x, TABLE[:12])


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data": "circle"}, ValueError, "data: expected one of sphere, gaussian, digits, got 'c"),
        ({"data": TABLE[0]}, ValueError, r"data: expected an array of rank 2.*got shape \(5,\)"),
        ({"data": TABLE, "n": 21}, ValueError, "n: expected at most 20 of these data, got 21"),
        ({"data": "digits", "n": 1798}, ValueError, "n: expected at most 1797 of these data"),
        ({"n": 1}, ValueError, "n: expected at least two samples, got 1"),
        ({"n": 2.5}, TypeError, "n: expected an integer, got 2.5"),
        ({"d": 0}, ValueError, "d: expected an integer >= 1, got 0"),
        ({"hidden": ()}, ValueError, "hidden: expected at least one hidden layer, got none"),
        ({"hidden": (3, 0)}, ValueError, r"hidden\[1\]: expected an integer >= 1, got 0"),
        ({"hidden": 3}, TypeError, "hidden: expected a sequence, got 3"),
        ({"init": "xavier"}, ValueError, 'init: expected "lecun", "he"'),
        ({"activation": "gelu"}, ValueError, "activation: expected one of relu, tanh, smoothed"),
        ({"seed": -1}, ValueError, "seed: expected an integer >= 0, got -1"),
    ],
)
def test_bad_settings_are_named_with_what_was_expected_and_what_came(changes, error, message):
    with pytest.raises(error, match=f"^{message}"):
        Settings(**SMALL | changes)


@pytest.mark.usefixtures("without_type_checks")
def test_an_unknown_view_other_settings_and_samples_without_a_file_are_named():
    for function in (explorer.frames, explorer.draw, explorer.code):
        with pytest.raises(ValueError, match=r"^view: expected one of architecture, .*got 'film'"):
            function("film", Settings())
        with pytest.raises(TypeError, match=r"^settings: expected Settings, got dict"):
            function("bounds", {})
    with pytest.raises(ValueError, match=r"^path: expected the file .*got None"):
        explorer.code("bounds", Settings(data=TABLE, n=12))


def dead_seed():
    """The first seed at which the only neuron is off at both samples."""

    def is_dead(seed):
        _, x, params = explorer.drawn(Settings(n=2, d=1, hidden=(1,), seed=seed))
        return not np.any(empirical_ntk(params, x))

    return next(filter(is_dead, itertools.count()))


def test_a_network_without_a_gradient_is_named():
    dead = Settings(n=2, d=1, hidden=(1,), seed=dead_seed())
    with pytest.raises(ValueError, match=r"^hidden: expected widths at which some sample has a"):
        explorer.draw("training", dead)
    explorer.draw("bounds", dead)


def test_the_explorer_is_a_room_of_the_package():
    assert ntk_utils.explorer is explorer
