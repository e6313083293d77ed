"""What the explorer shows: for each of its views, a pure function from settings to figures.

    settings = ntk_utils.explorer.Settings(data="digits", n=300, hidden=(900, 20))
    ntk_utils.explorer.draw("bounds", settings)

Notebook 15 lays out the widgets that choose the settings; `lab.live` sees to it that the newest
choice is drawn.
"""

import dataclasses
import functools
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import LogLocator, NullLocator
from threadpoolctl import ThreadpoolController

from ntk_utils import _checks
from ntk_utils.activations import Activation, SmoothedLeakyReLU, relu
from ntk_utils.bounds.empirical import layer_shares, sandwich
from ntk_utils.bounds.verified import rounded_down, what_is_proved
from ntk_utils.data import digit_labels, digits, gaussian, read_data, uniform_sphere
from ntk_utils.kernels import empirical_ntk, wide_layer_ntks
from ntk_utils.lab import plotting
from ntk_utils.networks import Network, feature_matrices, features_and_backward, init_params
from ntk_utils.report import scaled
from ntk_utils.spectra import rounding_error, smallest_eigenvalue, spectrum
from ntk_utils.training import frozen_residuals

DATA = ("sphere", "gaussian", "digits")
"""Samples that need no file."""

ACTIVATIONS: dict[str, Activation] = {
    "relu": relu,
    "tanh": jnp.tanh,
    "smoothed leaky relu": SmoothedLeakyReLU(),
}
"""Activations by the names that the explorer gives them."""

_STEPS = 60  # of gradient descent
_STEPS_A_FRAME = 15


@dataclasses.dataclass(frozen=True, eq=False)
class Settings:
    """What the sliders of the explorer say.

    Args:
      data: "sphere" (`uniform_sphere`), "gaussian" or "digits"; or samples, such as `read` returns,
        of which the first n rows are taken, as of the digits.
      n: the number N of samples, at least 2.
      d: dimension of "sphere" and "gaussian"; other samples have their own.
      hidden: widths (n_1, …, n_{L-1}) of the hidden layers, at least one.
      init: "lecun" or "he".
      activation: a key of `ACTIVATIONS`.
      seed: of samples, weights and labels.

    Raises:
      ValueError, TypeError: an unknown name, numbers out of range, fewer samples than n, or samples
        that are no finite numbers.
    """

    data: str | Float[np.ndarray, "_ _"] = "sphere"
    n: int = 200
    d: int = 50
    hidden: Sequence[int] = (800, 50)
    init: str = "he"
    activation: str = "relu"
    seed: int = 0

    def __post_init__(self):
        _one_of("activation", self.activation, ACTIVATIONS)
        if isinstance(self.data, str):
            _one_of("data", self.data, DATA)
        else:
            object.__setattr__(self, "data", np.asarray(_checks.samples("data", self.data)))
        if _checks.positive_integer("n", self.n) < 2:
            raise ValueError(f"n: expected at least two samples, got {self.n}")
        if self.n > self.available:
            raise ValueError(f"n: expected at most {self.available} of these data, got {self.n}")
        _checks.positive_integer("d", self.d)
        _checks.order("seed", self.seed)
        hidden = tuple(
            _checks.positive_integer(f"hidden[{i}]", width)
            for i, width in enumerate(_checks.iterable("hidden", self.hidden))
        )
        if not hidden:
            raise ValueError("hidden: expected at least one hidden layer, got none")
        object.__setattr__(self, "hidden", hidden)
        _ = self.network  # checks the initialisation

    @property
    def available(self) -> SupportsFloat:
        """How many samples there are, infinity where they are drawn."""
        if isinstance(self.data, str):
            return 1797 if self.data == "digits" else np.inf
        return len(self.data)

    @property
    def dim(self) -> int:
        """The dimension of the samples."""
        if isinstance(self.data, str):
            return 64 if self.data == "digits" else self.d
        return self.data.shape[1]

    @property
    def network(self) -> Network:
        """The network of these widths."""
        return Network((self.dim, *self.hidden, 1), self.init, ACTIVATIONS[self.activation])


def _one_of(name: str, value, names) -> None:
    if value not in names:
        raise ValueError(f"{name}: expected one of {', '.join(names)}, got {value!r}")


def read(path) -> Float[np.ndarray, "N d"]:
    """Read samples from a CSV file and bring them to the sphere, as `digits` are.

    The mean of each column is subtracted, and each row scaled to norm √d.

    Args:
      path: as `read_data` takes it.

    Returns: the samples, shape (N, d).

    Raises:
      ValueError: as `read_data` does; a row that is the mean of all rows.
    """
    return scaled(read_data(path), "sphere")


def drawn(settings: Settings) -> tuple[Network, np.ndarray, tuple[np.ndarray, ...]]:
    """Return the network of the settings, its samples and its weights, all in NumPy.

    Args:
      settings: of data and weights.
    """
    key_x, key_w = jax.random.split(jax.random.key(settings.seed))
    network, n = settings.network, settings.n
    if not isinstance(settings.data, str):
        x = settings.data[:n]
    elif settings.data == "digits":
        x = digits(n)
    else:
        x = {"sphere": uniform_sphere, "gaussian": gaussian}[settings.data](key_x, n, settings.d)
    # where nothing is compiled for a new shape
    return network, np.asarray(x), tuple(map(np.asarray, init_params(network, key_w)))


def frames(view: str, settings: Settings) -> Iterator[Figure]:
    """Yield the figures of a view, each more complete than the one before.

    All views have one figure but two: gradient descent grows while the network trains, and to the
    bounds of a ReLU network is added what is proved.
    Nothing is computed before the next one is asked for: who no longer wants it stops asking.

    Args:
      view: a key of `VIEWS`.
      settings: what to draw.

    Raises:
      ValueError, TypeError: an unknown view, settings of another type.
    """
    _one_of("view", view, VIEWS)
    return _on_one_thread(VIEWS[view](_checks.instance_of(Settings)("settings", settings)))


def _on_one_thread(figures: Iterator[Figure]) -> Iterator[Figure]:
    """The same figures, computed by one thread of BLAS.

    Matrices are small here, and further threads wait for more of them in a loop that keeps a core
    busy: with two, a picture on two cores takes twice as long.
    """
    while True:
        with _blas().limit(limits=1):
            figure = next(figures, None)
        if figure is None:
            return
        yield figure


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def draw(view: str, settings: Settings) -> Figure:
    """Return the last of the `frames`, the whole figure.

    Args:
      view: a key of `VIEWS`.
      settings: what to draw.

    Raises:
      ValueError, TypeError: an unknown view, settings of another type.
    """
    *_, figure = frames(view, settings)
    return figure


class _Picture(Figure):
    """A figure that a notebook shows although pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Figure) -> bytes:
    """Return what a PNG file of a figure holds.

    Args:
      figure: as `draw` returns it.
    """
    canvas, file = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()  # once; `savefig` draws a second time, to find out the layout
    imsave(file, canvas.buffer_rgba(), format="png")
    return file.getvalue()


def code(view: str, settings: Settings, *, path: str | None = None) -> str:
    """Return three lines of Python that draw the same figure.

    Args:
      view: a key of `VIEWS`.
      settings: what to draw.
      path: the file from which `read` took the samples, if it did; where the lines are executed, it
        has to be there.

    Raises:
      ValueError, TypeError: an unknown view, settings of another type, samples without a path.
    """
    _one_of("view", view, VIEWS)
    _checks.instance_of(Settings)("settings", settings)
    said = {f.name: repr(getattr(settings, f.name)) for f in dataclasses.fields(settings)}
    if not isinstance(settings.data, str):
        if path is None:
            raise ValueError("path: expected the file that the samples were read from, got None")
        said["data"] = f"ntk.explorer.read({path!r})"
    if settings.dim != settings.d:
        del said["d"]  # these samples have a dimension of their own
    arguments = ", ".join(f"{name}={value}" for name, value in said.items())
    return (
        "import ntk_utils as ntk; ntk.use_style()\n"
        f"settings = ntk.explorer.Settings({arguments})\n"
        f"ntk.explorer.draw({view!r}, settings)"
    )


# --- what is drawn --------------------------------------------------------------------------------


def _labels(settings: Settings) -> tuple[str, np.ndarray]:
    """Whether a digit is odd, random signs for other samples; and how the labels are called."""
    if isinstance(settings.data, str) and settings.data == "digits":
        return "odd or even", np.where(digit_labels(settings.n) % 2, 1.0, -1.0)
    return "random signs", np.random.default_rng(settings.seed).choice([-1.0, 1.0], settings.n)


def _wide_limit(network: Network, x):
    """The kernel if all layers were large, or None: it is known here for the ReLU alone."""
    return wide_layer_ntks(network, x).sum(axis=0) if network.activation is relu else None


def _axes(title: str, **labels) -> tuple[Figure, Axes]:
    """New axes, all at fixed places: to look for better ones takes as long as the drawing."""
    width, height = rcParams["figure.figsize"]
    figure = _Picture(figsize=(15 / 11 * width, height), layout="none")
    ax = figure.add_axes((0.11, 0.17, 0.56, 0.72))
    ax.set_title(title, y=1.02)
    ax.set(**labels)
    ax.xaxis.set_label_coords(0.5, -0.12)
    ax.yaxis.set_label_coords(-0.12, 0.5)
    return figure, ax


def _legend(ax: Axes) -> None:
    """On the right of the axes, where it covers nothing."""
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.03), frameon=False)


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _positive(values, rounding: float = 0.0) -> np.ndarray:
    """The values that a logarithmic axis can show, nan for the others."""
    return np.where(np.asarray(values) > rounding, values, np.nan)


def _plain_ticks(axis) -> None:
    """Label a logarithmic axis by plain text: mathematics takes half of the time of a figure.

    Args:
      axis: `ax.xaxis` or `ax.yaxis`.
    """
    low, high = axis.get_view_interval()
    axis.set_minor_locator(NullLocator())
    if high > 100 * low:
        axis.set_major_formatter(lambda v, _: "10" + f"{np.log10(v):.0f}".translate(_RAISED))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(lambda v, _: f"{v:g}")


def _architecture(settings: Settings) -> Iterator[Figure]:
    network = settings.network
    weights = sum(n * m for n, m in itertools.pairwise(network.widths))
    figure, ax = _axes(f"{weights:,} weights for {settings.n:,} samples")
    _legend(plotting.architecture(ax, network, settings.n))
    _plain_ticks(ax.yaxis)
    yield figure


def _spectrum(settings: Settings) -> Iterator[Figure]:
    network, x, params = drawn(settings)
    k = empirical_ntk(params, x, activation=network.activation)
    eigenvalues, rounding = spectrum(k), rounding_error(k)
    figure, ax = _axes(f"smallest eigenvalue: {_in_words(eigenvalues[0], rounding)}")
    eigenvalues[eigenvalues <= rounding] = 0
    plotting.spectrum(ax, eigenvalues, label="K̄ of this draw")
    wide = _wide_limit(network, x)
    if wide is not None:
        limit = _positive(spectrum(wide), rounding_error(wide))[::-1]
        rank = np.arange(1, settings.n + 1)
        plotting.limit(ax, rank, limit, label="if all layers were large")
    _legend(ax)
    _plain_ticks(ax.yaxis)
    yield figure


def _in_words(value: float, rounding: float) -> str:
    return f"{value:.3g}" if value > rounding else "0, up to rounding"


def _layer_terms(settings: Settings) -> Iterator[Figure]:
    network, x, params = drawn(settings)
    found = sandwich(params, x, activation=network.activation)
    shares = layer_shares(params, x, activation=network.activation)
    a, b = found.feature_factors, found.gradient_factors
    series = {
        "its part of λₘᵢₙ(K̄)": shares * found.lambda_min,
        "Schur term, a · b": a * b,
        "a = λₘᵢₙ(Fₖ Fₖᵀ)": a,
        "b = minᵢ ‖(Bₖ₊₁)ᵢ‖²": b,
    }
    figure, ax = _axes("what each layer term gives", yscale="log")
    k = np.arange(network.depth)
    for i, (label, values) in enumerate(series.items()):
        ax.plot(k + 0.13 * (i - 1.5), _positive(values), linestyle="", label=label)
    ax.set_xticks(k, [f"k = {i}\n({n})" for i, n in enumerate(network.widths[:-1])])
    ax.set_xlim(-0.5, network.depth - 0.5)
    ax.grid(visible=False, axis="x")
    _legend(ax)
    _plain_ticks(ax.yaxis)
    yield figure


def _bounds(settings: Settings) -> Iterator[Figure]:
    network, x, params = drawn(settings)
    found = sandwich(params, x, activation=network.activation)
    wide = _wide_limit(network, x)
    values = {
        "Schur bound": found.lower,
        "λₘᵢₙ(K̄) of this draw": found.lambda_min,
        "smallest K̄ᵢᵢ": found.upper,
    }
    if wide is not None:
        values["λₘᵢₙ of large layers"] = smallest_eigenvalue(wide)
    figure, ax = _axes("the smallest eigenvalue between its bounds", xscale="log")
    for row, (label, value) in enumerate(values.items()):
        of_draw = label.endswith("of this draw")
        if value > found.rounding:
            ax.plot(value, row, marker="o", color="C0" if of_draw else "black")
        # apart from one another, since a label that stays is typeset once
        beside = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points"}
        text = _in_words(value, found.rounding)
        ax.annotate(label, (1.03, row), (0, 2), va="bottom", **beside)
        said = ax.annotate(text, (1.03, row), (0, -2), va="top", fontweight="bold", **beside)
        if of_draw:
            of_lambda_min = said
    ax.set_yticks(range(len(values)), [])
    ax.set_ylim(-0.5, len(values) - 0.5)
    ax.margins(x=0.1)
    _plain_ticks(ax.xaxis)
    yield figure
    if settings.activation == "relu" and (proved := what_is_proved(params, x)) > 0:
        of_lambda_min.set_text(f"{of_lambda_min.get_text()}, proved ≥ {rounded_down(proved):.3g}")
        yield figure


def _features(settings: Settings) -> Iterator[Figure]:
    network, x, params = drawn(settings)
    f = feature_matrices(params, x, activation=network.activation)
    figure, ax = _axes("singular values of the feature matrices", xlabel="rank")
    for k, f_k in enumerate(f):
        values = np.linalg.svd(np.asarray(f_k), compute_uv=False)
        ax.plot(
            np.arange(1, len(values) + 1),
            _positive(values, 1e-12 * values[0]),
            markersize=3,
            label=f"F{chr(0x2080 + k)}, width {f_k.shape[1]}",
        )
    ax.axvline(settings.n, linestyle="--", color="black", linewidth=1, label=f"N = {settings.n}")
    ax.set(yscale="log")
    _legend(ax)
    _plain_ticks(ax.yaxis)
    yield figure


def _training(settings: Settings) -> Iterator[Figure]:
    network, x, params = drawn(settings)
    name, y = _labels(settings)
    k = np.asarray(empirical_ntk(params, x, activation=network.activation))
    eigenvalues, steps = spectrum(k), np.arange(_STEPS + 1)
    if not eigenvalues[-1] > 0:
        raise ValueError("hidden: expected widths at which some sample has a gradient, got none")
    step_size = 1 / eigenvalues[-1]
    _, residual = _descent_step(params, x, y, step_size, network.activation)
    frozen = frozen_residuals(k, residual, step_size, steps)
    slowest = (1 - max(eigenvalues[0], 0) * step_size) ** (2 * steps)
    losses = []
    while True:
        title = f"step size 1/λₘₐₓ, labels: {name}"
        figure, ax = _axes(title, xlabel="steps of gradient descent", yscale="log")
        ax.plot(steps[: len(losses)], losses, markersize=3, label="measured")
        loss = (frozen**2).sum(axis=1) / (residual @ residual)
        plotting.limit(ax, steps, loss, label="if K̄ did not change")
        plotting.bound(ax, steps, slowest, side="upper", label="(1 - λₘᵢₙ/λₘₐₓ)²ᵗ")
        ax.set_ylabel("loss / loss at the start")
        _legend(ax)
        _plain_ticks(ax.yaxis)
        yield figure
        if len(losses) > _STEPS:
            return
        for _ in range(min(_STEPS_A_FRAME, _STEPS + 1 - len(losses))):
            params, r = _descent_step(params, x, y, step_size, network.activation)
            losses.append(r @ r / (residual @ residual))


def _descent_step(params, x, y, step_size, activation):
    """The weights after a step of gradient descent, and the residual before it.

    In NumPy: that of `training` is compiled for each shape, and a slider changes the shape.
    """
    f, b = features_and_backward(params, x, activation)
    residual = (f[-1] @ params[-1])[:, 0] - y
    r = residual[:, None]
    return [
        w - step_size * f_k.T @ (r * b_k) for w, f_k, b_k in zip(params, f, b, strict=True)
    ], residual


VIEWS: dict[str, Callable[[Settings], Iterator[Figure]]] = {
    "architecture": _architecture,
    "spectrum": _spectrum,
    "layer terms": _layer_terms,
    "bounds": _bounds,
    "features": _features,
    "training": _training,
}
"""The views by their names."""
