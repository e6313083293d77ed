"""Fitting labels: the construction of Corollary 4.2, Gauss–Newton, gradient descent and flow, Adam.

If K̄ = J Jᵀ is positive definite, J Δ = y has a solution Δ = Jᵀ K̄⁻¹ y for all labels y.
`memorizing_network` makes a network of twice the widths out of it, without training. The others
minimise ½ Σ_i (f(x_i) - y_i)² over all weights of a network of `networks`. Gauss–Newton solves with
K̄ at each step; gradient descent and gradient flow record what the theorems on them speak of; Adam
is what a published experiment trains with.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np
import scipy.integrate
import scipy.linalg
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils._progress import progress_bar
from ntk_utils._scale import polar
from ntk_utils.activations import Activation, is_activation, relu
from ntk_utils.data import parallel_pairs
from ntk_utils.kernels import empirical_ntk
from ntk_utils.networks import (
    Params,
    apply,
    backward_matrices,
    feature_matrices,
    outputs,
)
from ntk_utils.spectra import rounding_error, smallest_eigenvalue, spectrum

_CHUNK = 200
"""Steps of gradient descent that one compiled call makes."""

_SCALES = 4.0 ** np.arange(27)
"""From a step Δ/c as long as the weights to one that is lost in their rounding, 2^-52."""


class Fit(NamedTuple):
    """What Gauss–Newton and Adam return: the weights, and two numbers for each state up to them."""

    params: tuple[Float[Array, "_ _"], ...]
    """(W_1, …, W_L) after the last step"""
    losses: Float[np.ndarray, " states"]
    """½ Σ_i (f(x_i) - y_i)², first at the given weights, then after each step"""
    errors: Float[np.ndarray, " states"]
    """max_i |f(x_i) - y_i|, likewise: the ε to which the labels are fitted"""


class Trajectory(NamedTuple):
    """What gradient descent returns: the last weights, numbers for each state, and some states."""

    params: tuple[Float[Array, "_ _"], ...]
    """(W_1, …, W_L) after the last step"""
    losses: Float[np.ndarray, " states"]
    """½ Σ_i (f(x_i) - y_i)², first at the given weights, then after each step"""
    errors: Float[np.ndarray, " states"]
    """max_i |f(x_i) - y_i|, likewise"""
    gradient_norms: Float[np.ndarray, " states"]
    """‖Jᵀ r‖, the norm of the gradient of the loss in all weights, likewise"""
    path: dict[int, tuple[Float[Array, "_ _"], ...]]
    """the weights after 0, `record_every`, 2 `record_every`, … steps, and after the last"""


class Flow(NamedTuple):
    """What gradient flow returns: the state at each of the times that were asked for."""

    times: Float[np.ndarray, " times"]
    """t, increasing, the first one 0"""
    losses: Float[np.ndarray, " times"]
    """½ Σ_i (f(x_i) - y_i)²"""
    errors: Float[np.ndarray, " times"]
    """max_i |f(x_i) - y_i|"""
    gradient_norms: Float[np.ndarray, " times"]
    """‖Jᵀ r‖, the norm of the gradient of the loss in all weights"""
    path: tuple[tuple[Float[Array, "_ _"], ...], ...]
    """(W_1, …, W_L) at each time"""

    @property
    def distances(self) -> Float[np.ndarray, " times"]:
        """‖θ(t) - θ(0)‖, in all weights: how far the flow is from its start at each time."""
        moves = [jax.tree.map(jnp.subtract, weights, self.path[0]) for weights in self.path]
        return np.sqrt([sum(float((move**2).sum()) for move in of_layers) for of_layers in moves])


class TrainingInterrupted(KeyboardInterrupt):
    """What interrupted training raises; `run` is what it would have returned, up to there.

    At a prompt and in a notebook it is `sys.last_value.run`.
    """

    def __init__(self, message: str, run: Trajectory | Flow | Fit):
        super().__init__(message)
        self.run = run


@checked(x=_checks.inputs, y=_checks.labels)
def contradictions(x: Float[ArrayLike, "N d"], y: Float[ArrayLike, " N"]) -> list[tuple[int, int]]:
    """Return the pairs of samples whose labels no ReLU network without biases can both fit.

    Such a network is positively homogeneous, f(c x) = c f(x) for c >= 0. So a repeated sample asks
    for a repeated label, and more generally x_j = c x_i asks for y_j = c y_i. Samples are taken as
    parallel when their directions differ by at most 1e-12, labels as equal to 1e-9 of the larger.

    Args:
      x: samples, shape (N, d).
      y: labels, shape (N,).

    Returns: the pairs (i, j), i < j, in order; (i, i) for a sample 0 with a label other than 0.

    Raises:
      ValueError: x and y are not of the same length.
    """
    norms, _ = polar(x)
    at_zero = [(int(i), int(i)) for i in np.flatnonzero((norms == 0) & (y != 0))]
    unlike = [
        (i, j)
        for i, j in parallel_pairs(x)
        if not np.isclose(y[i] * norms[j], y[j] * norms[i], rtol=1e-9, atol=0)
    ]
    return sorted(at_zero + unlike)


@checked(params=_checks.weights, x=_checks.inputs, y=_checks.labels, activation=is_activation)
def loss_gradient(
    params: Params,
    x: Float[ArrayLike, "N d"],
    y: Float[ArrayLike, " N"],
    *,
    activation: Activation = relu,
) -> tuple[Float[Array, "_ _"], ...]:
    """Compute the gradient of the loss Φ = ½ Σ_i (f(x_i) - y_i)² in each weight matrix.

        ∇Φ = Jᵀ r,   that is ∂Φ/∂W_l = F_{l-1}ᵀ diag(r) B_l,   l = 1, …, L,   r = f(X) - y

    Args:
      params: θ = (W_1, …, W_L).
      x: samples, shape (N, d).
      y: labels, shape (N,), real or integer.
      activation: σ.

    Returns: (∂Φ/∂W_1, …, ∂Φ/∂W_L), of the shapes of the weights.

    Raises:
      ValueError: x and y of different lengths, weights that do not fit together or do not fit x.
    """
    r = np.asarray(apply(params, x, activation=activation)) - y
    return tuple(map(_checks.on_device, _pull_back(params, x, r, activation)))


@checked(params=_checks.weights, x=_checks.inputs, y=_checks.labels)
def least_norm_step(
    params: Params, x: Float[ArrayLike, "N d"], y: Float[ArrayLike, " N"]
) -> tuple[Float[Array, "_ _"], ...]:
    """Compute the smallest change of the weights that changes the linearised outputs by y.

        Δ = J⁺ y = Jᵀ α,   α = K̄⁺ y,   that is Δ_{k+1} = F_kᵀ diag(α) B_{k+1},   k = 0, …, L-1

    If K̄ is positive definite, J Δ = y and ‖Δ‖² = yᵀ K̄⁻¹ y. If it is singular, J Δ comes as close
    to y as it can; eigenvalues of K̄ up to `rounding_error` count as 0. No Jacobian is formed.

    Args:
      params: θ = (W_1, …, W_L).
      x: samples, shape (N, d).
      y: the N changes of the outputs, shape (N,), real or integer.

    Returns: Δ = (Δ_1, …, Δ_L), of the shapes of the weights.

    Raises:
      ValueError: x and y of different lengths, weights that do not fit together or do not fit x.
    """
    params, x = _in_double(params, x)
    k = np.asarray(empirical_ntk(params, x))
    return tuple(map(_checks.on_device, _least_norm_step(params, x, k, y)))


@checked(params=_checks.weights, step=_checks.weights, scale=_checks.positive_number)
def difference_network(
    params: Params, step: Params, scale: float
) -> tuple[Float[Array, "_ _"], ...]:
    """Build the network whose output is a difference quotient of another one.

        f(x; θ') = c (f(x; θ + Δ/c) - f(x; θ))

    Two copies side by side: W'_1 = (W_1 + Δ_1/c, W_1), the blocks W_l + Δ_l/c and W_l on the
    diagonal of W'_l for 1 < l < L, and W'_L with c (W_L + Δ_L/c) over -c W_L. For L = 1, which has
    no hidden layer to double, this is Δ itself. Each output is the difference of two numbers about
    c |f(x; θ)|, so it carries their rounding.

    Source: the proof of Corollary 4.2 of arXiv:2012.11654v5.

    Args:
      params: θ = (W_1, …, W_L).
      step: Δ = (Δ_1, …, Δ_L), of the same shapes.
      scale: c > 0; a power of 2 adds no rounding of its own.

    Returns: the weights θ' of a network of widths (d, 2 n_1, …, 2 n_{L-1}, 1).

    Raises:
      ValueError: the matrices of `step` do not have the shapes of those of `params`.
    """
    if [w.shape for w in params] != [dw.shape for dw in step]:
        raise ValueError(
            f"step: expected matrices of shapes {[w.shape for w in params]}, "
            f"got {[dw.shape for dw in step]}"
        )
    return _side_by_side(*([np.asarray(w) for w in weights] for weights in (params, step)), scale)


@checked(
    params=_checks.weights, x=_checks.inputs, y=_checks.labels, epsilon=_checks.positive_number
)
def memorizing_network(
    params: Params, x: Float[ArrayLike, "N d"], y: Float[ArrayLike, " N"], epsilon: float
) -> tuple[Float[Array, "_ _"], ...]:
    """Build a network of twice the widths that fits the labels: max_i |f(x_i) - y_i| <= ε.

        θ' = `difference_network`(θ, Δ, c),   f(x_i; θ') = y_i + O(1/c)

    by Taylor's theorem, since J Δ = y for Δ = `least_norm_step`. No training: one linear system,
    then the smallest scale c that reaches ε, out of c_0, 4 c_0, 16 c_0, …, with Δ/c_0 about as
    large as θ. By this construction Corollary 4.2 of arXiv:2012.11654v5 shows that λ_min(K̄) > 0
    suffices to fit any labels to any precision; Theorem 4.1 has it with high probability, for data
    under Assumptions 2.1 and 2.2, if one layer has of the order of N neurons, up to logarithms, and
    those in front of it are not too narrow. Here λ_min(K̄) is computed.

    Rounding grows as c where the error falls as 1/c, so that double precision ends at an ε of about
    1e-7 for labels, outputs and weights of order 1.

    Args:
      params: θ = (W_1, …, W_L), weights with λ_min(K̄) > 0 on these samples.
      x: samples, shape (N, d).
      y: labels, shape (N,), real or integer.
      epsilon: the error ε > 0, to be met by the outputs as `apply` computes them.

    Returns: the weights θ' of a network of widths (d, 2 n_1, …, 2 n_{L-1}, 1).

    Raises:
      ValueError: what prevents it. The labels contradict each other, with the pairs of
        `contradictions`; K̄ is singular to rounding; no scale reaches ε in double precision, with
        the smallest error found; x and y of different lengths, weights that do not fit together or
        do not fit x.
    """
    _are_consistent(x, y)
    params, x = _in_double(params, x)
    k = np.asarray(empirical_ntk(params, x))
    if smallest_eigenvalue(k) <= rounding_error(k):
        raise ValueError(
            "params: expected weights at which the NTK of these samples is positive definite, "
            "got one that is singular to rounding"
        )
    theta = tuple(map(np.asarray, params))
    step = _least_norm_step(params, x, k, y)
    errors = []
    for scale in _power_of_two(_largest(step) / (_largest(theta) or 1.0)) * _SCALES:
        built = _side_by_side(theta, step, scale)
        errors.append(float(np.abs(np.asarray(apply(built, x)) - y).max()))
        if errors[-1] <= epsilon:
            return built
    raise ValueError(
        "epsilon: expected at least the smallest error that this construction reaches in double "
        f"precision, here about {min(errors):.2g}, got {epsilon:.2g}"
    )


@checked(**_checks.labelled, steps=_checks.positive_integer)
def gauss_newton(
    params: Params,
    x: Float[ArrayLike, "N d"],
    y: Float[ArrayLike, " N"],
    *,
    steps: int = 100,
    tolerance: float = 1e-9,
) -> Fit:
    """Fit the labels to max_i |f(x_i) - y_i| <= tolerance by damped Gauss–Newton steps.

        θ ← θ - Jᵀ (K̄ + ρ I)^{-1} r,   r = f(X) - y,   K̄ = J Jᵀ

    With ρ = 0 this is the smallest step that makes the linearised network fit exactly; with ρ > 0
    it is Levenberg's, (JᵀJ + ρ I)^{-1} Jᵀ r. No Jacobian is formed: the cost of a step is that of K̄
    and of its N × N Cholesky factor. ρ starts at 1e-3 of the mean of K̄'s diagonal, falls tenfold
    after a step that lowers the loss, and rises tenfold after one that does not and is therefore
    not taken. So the loss never increases. The search ends early when no step lowers the loss
    even at ρ = 1e12 of that mean.

    Whether the tolerance was reached is for the caller to see, in `errors[-1]`: a network with
    fewer weights than samples, or an unlucky start, ends with a larger error.

    Args:
      params: (W_1, …, W_L), the weights to start from.
      x: samples, shape (N, d).
      y: labels, shape (N,), real or integer.
      steps: the largest number of steps, those not taken included.
      tolerance: the error ε at which to stop.

    Raises:
      ValueError: the labels contradict each other, with the pairs of `contradictions`; x and y of
        different lengths; weights that do not fit together or do not fit x.
    """
    _are_consistent(x, y)
    params, x, y = _in_double(params, x, y)
    states = [tuple(map(float, _loss_and_error(params, x, y)))]
    damping = 1e-3
    for _ in range(steps):
        if states[-1][1] <= tolerance or damping > 1e12:
            break
        trial, loss, error = _levenberg_step(params, x, y, damping)
        lower = float(loss) < states[-1][0]  # False for nan, from a failed Cholesky factorisation
        params = trial if lower else params
        states.append((float(loss), float(error)) if lower else states[-1])
        damping = max(damping / 10, 1e-15) if lower else damping * 10
    return Fit(params, *np.array(states).T)


@checked(
    **_checks.labelled,
    steps=_checks.positive_integer,
    activation=is_activation,
    record_every=_checks.none_or(_checks.positive_integer),
)
def gradient_descent(
    params: Params,
    x: Float[ArrayLike, "N d"],
    y: Float[ArrayLike, " N"],
    *,
    steps: int = 1000,
    step_size: float | None = None,
    tolerance: float = 1e-9,
    activation: Activation = relu,
    record_every: int | None = None,
) -> Trajectory:
    """Minimise the loss by full-batch gradient descent, θ ← θ - η Jᵀ r, r = f(X) - y.

    The linearised network has r ← (I - η K̄) r: it converges for η < 2/λ_max, and with η = 1/λ_max
    a step multiplies ‖r‖ by at most 1 - λ_min/λ_max. Contradictory labels are no error here: the
    loss then stays above (y_i - y_j)²/4 for each repeated sample x_i = x_j.

    A run of more than two seconds shows a progress bar; one that is interrupted raises
    `TrainingInterrupted`, which holds the steps that were taken.

    Args:
      params: (W_1, …, W_L), the weights to start from.
      x: samples, shape (N, d).
      y: labels, shape (N,), real or integer.
      steps: the largest number of steps.
      step_size: η; by default 1/λ_max(K̄) of the weights to start from.
      tolerance: the error max_i |f(x_i) - y_i| at which to stop.
      activation: σ.
      record_every: keep the weights at the start, after every so many steps, and at the end.

    Raises:
      ValueError: x and y of different lengths, weights that do not fit together or do not fit x, an
        NTK that is 0 at the start where it gives η, a step size that is not positive, or one at
        which the loss overflows.
      TrainingInterrupted: it was, as by Ctrl-C.
    """
    params, x, y = _in_double(params, x, y)
    if step_size is None:
        largest = float(spectrum(empirical_ntk(params, x, activation=activation))[-1])
        if not largest > 0:
            raise ValueError("params: expected weights that some sample moves, got an NTK of 0")
        step_size = 1 / largest
    step_size = _checks.positive_number("step_size", step_size)

    interval = record_every or steps
    at_once = math.ceil(record_every / math.ceil(record_every / _CHUNK)) if record_every else _CHUNK
    states, path, done, goes_on = [], {}, 0, True
    interruption = None
    try:
        with progress_bar(steps, unit=" steps", delay=2) as bar:
            while done < steps and goes_on:
                if done % interval == 0:
                    path[done] = params
                n = min(at_once, interval - done % interval, steps - done)
                # steps of size 0 fill the last call up: one compilation serves any number of steps
                sizes = np.where(np.arange(at_once) < n, step_size, 0.0)
                moved, of_steps = _descend(params, x, y, sizes, tolerance, activation)
                states.append(np.asarray(of_steps)[:n])
                params, done, goes_on = moved, done + n, states[-1][-1, 1] > tolerance
                bar.update(n)
    except KeyboardInterrupt as error:
        interruption = error
    last = _gradient_and_state(params, x, y, activation)[1]
    states = np.concatenate([np.concatenate([*states, np.zeros((0, 3))])[:done], [last]])
    if not np.isfinite(states).all():
        raise ValueError(
            f"step_size: expected one at which gradient descent is stable, got {step_size:.3g}: "
            f"the loss overflowed after {np.isfinite(states).all(axis=1).argmin()} steps"
        )
    taken = int((states[:-1, 1] > tolerance).sum())
    losses, errors, gradient_norms = np.concatenate([states[:taken], states[-1:]]).T
    path = {step: weights for step, weights in path.items() if step < taken} | {taken: params}
    run = Trajectory(params, losses, errors, gradient_norms, path if record_every else {})
    if interruption:
        message = f"after {taken} of {steps} steps; they are in the attribute `run` of this error"
        raise TrainingInterrupted(message, run) from interruption
    return run


@checked(
    params=_checks.weights,
    x=_checks.inputs,
    y=_checks.labels,
    times=_checks.times,
    activation=is_activation,
    tolerance=_checks.positive_number,
)
def gradient_flow(
    params: Params,
    x: Float[ArrayLike, "N d"],
    y: Float[ArrayLike, " N"],
    times: Float[ArrayLike, " times"],
    *,
    activation: Activation,
    tolerance: float = 1e-6,
) -> Flow:
    """Follow the gradient of the loss in continuous time, dθ/dt = -Jᵀ r, r = f(X) - y.

    The limit of `gradient_descent` as η → 0, at t = η k. Theorems on it need no step size. SciPy's
    LSODA integrates it, with the Hessian of the loss where the problem is stiff, as it is for large
    λ_max/λ_min: a network may have a few thousand weights. Between the times LSODA chooses its
    steps.

    A run of more than two seconds shows a progress bar; one that is interrupted raises
    `TrainingInterrupted`, which holds the times that were reached.

    Args:
      params: (W_1, …, W_L), the weights at t = 0.
      x: samples, shape (N, d).
      y: labels, shape (N,), real or integer.
      times: when to record, increasing from 0, in units of 1/(eigenvalues of K̄).
      activation: σ, smooth: where σ' jumps, as that of the ReLU does, the flow is not unique.
      tolerance: the error of a step of the integrator, as a share of ‖r(0)‖: that of a weight is
        this times ‖r(0)‖/√λ_max(K̄(0)).

    Raises:
      ValueError: times that do not increase from 0; x and y of different lengths, weights that do
        not fit together or do not fit x; a time that the integrator does not reach.
      TrainingInterrupted: it was, as by Ctrl-C.
    """
    params, x, y = _in_double(params, x, y)
    theta, as_weights = ravel_pytree(params)
    start = float(jnp.linalg.norm(_residual(params, x, y, activation)))
    largest = float(spectrum(empirical_ntk(params, x, activation=activation))[-1])
    options = {
        "method": "LSODA",
        "jac": lambda _, w: -_hessian(w, params, x, y, activation),
        "rtol": 1e-12,
        "atol": tolerance * (start / math.sqrt(largest or 1.0) or 1.0),
    }
    velocity = lambda _, w: -_gradient(w, params, x, y, activation)  # noqa: E731
    path, interruption = [np.asarray(theta)], None
    try:
        with progress_bar(len(times) - 1, unit=" times", delay=2) as bar:
            for ends in itertools.pairwise(times):
                solved = scipy.integrate.solve_ivp(
                    velocity, ends, path[-1], t_eval=ends[1:], **options
                )
                if not solved.success:
                    raise ValueError(
                        f"times: expected some that the flow reaches, got {ends[1]:.3g}: "
                        f"{solved.message}"
                    )
                path.append(solved.y[:, -1])
                bar.update()
    except KeyboardInterrupt as error:
        interruption = error
    weights = tuple(as_weights(jnp.asarray(w)) for w in path)
    states = [np.asarray(_gradient_and_state(w, x, y, activation)[1]) for w in weights]
    run = Flow(times[: len(path)], *np.transpose(states), weights)
    if interruption:
        message = f"at time {run.times[-1]:.3g} of {times[-1]:.3g}; see the attribute `run`"
        raise TrainingInterrupted(message, run) from interruption
    return run


@checked(
    **_checks.labelled,
    steps=_checks.positive_integer,
    learning_rate=_checks.none_or(_checks.positive_number),
    activation=is_activation,
)
def adam(
    params: Params,
    x: Float[ArrayLike, "N d"],
    y: Float[ArrayLike, " N"],
    *,
    learning_rate: float | None = None,
    steps: int = 10_000,
    tolerance: float = 1e-9,
    until_it_rises: bool = True,
    activation: Activation = relu,
) -> Fit:
    """Minimise the loss by full-batch Adam, with the moments of optax.

    After every 100 steps the run ends if the last error is within the tolerance; or, by the rule of
    the source, if the sum of the last 100 losses is above that of the 100 before them. Adam's loss
    rises and falls: the rule can end a run that would go on to fit.

    Source: the training of arXiv:2205.10217, Figure 2, which has no tolerance. Its loss is the mean
      over the samples; Adam's steps do not depend on such a factor, but for the 1e-8 that it adds
      to a root.

    Args:
      params: (W_1, …, W_L), the weights to start from.
      x: samples, shape (N, d).
      y: labels, shape (N,), real or integer.
      learning_rate: the size of the first step of each weight; by default 1/(10 √N), that of the
        source.
      steps: the largest number of steps, taken in hundreds: rounded up to the next of them.
      tolerance: the error max_i |f(x_i) - y_i| at which to stop.
      until_it_rises: whether to end by the rule of the source.
      activation: σ.

    Raises:
      ValueError: x and y of different lengths, weights that do not fit together or do not fit x, or
        a learning rate at which the loss overflows.
      TrainingInterrupted: it was, as by Ctrl-C; its `run` has the steps that were taken.
    """
    import optax

    params, x, y = _in_double(params, x, y)
    learning_rate = learning_rate or 0.1 / math.sqrt(len(y))
    carry = params, optax.adam(learning_rate).init(params)
    states, interruption = [], None
    try:
        with progress_bar(100 * math.ceil(steps / 100), unit=" steps", delay=2) as bar:
            falls, state = True, _gradient_and_state(params, x, y, activation)[1]
            while falls and 100 * len(states) < steps and state[1] > tolerance:
                carry, of_steps = _adam(carry, x, y, learning_rate, activation)
                states.append(np.asarray(of_steps))
                state = states[-1][-1]
                sums = [of_steps[:, 0].sum() for of_steps in states[-2:]]
                falls = not until_it_rises or sums[-1] <= sums[0]
                bar.update(100)
    except KeyboardInterrupt as error:
        interruption = error
    last = np.asarray(_gradient_and_state(carry[0], x, y, activation)[1])[None]
    losses, errors = np.concatenate([*states, last])[:, :2].T
    if not np.isfinite(losses).all():
        raise ValueError(
            f"learning_rate: expected one at which Adam is stable, got {learning_rate:.3g}: "
            f"the loss overflowed after {np.isfinite(losses).argmin()} steps"
        )
    run = Fit(carry[0], losses, errors)
    if interruption:
        message = f"after {len(losses) - 1} of {steps} steps; they are in its attribute `run`"
        raise TrainingInterrupted(message, run) from interruption
    return run


@checked(k=_checks.kernel, residual=_checks.labels, step_size=_checks.positive_number)
def frozen_residuals(
    k: Float[ArrayLike, "N N"],
    residual: Float[ArrayLike, " N"],
    step_size: float,
    steps: Iterable[SupportsIndex],
) -> Float[np.ndarray, "steps N"]:
    """Predict the residuals of gradient descent while the kernel stays what it is.

        r_s = (I - η K)^s r_0

    Exact for a model that is linear in its weights.

    Args:
      k: the NTK at the start, shape (N, N).
      residual: r_0 = f(X) - y, shape (N,).
      step_size: η; the prediction grows without bound above 2/λ_max(K).
      steps: the numbers s of steps, integers >= 0.

    Returns: one row for each number of steps.

    Raises:
      ValueError, TypeError: numbers of steps that are no integers or negative, or so many that the
        prediction overflows; a residual that is not as long as the kernel.
    """
    if len(residual) != len(k):
        raise ValueError(f"residual: expected {len(k)} entries, got {len(residual)}")
    counts = _checks.iterable("steps", steps)
    counts = [_checks.order(f"steps[{i}]", s) for i, s in enumerate(counts)]
    eigenvalues, v = scipy.linalg.eigh(k, check_finite=False)
    with np.errstate(over="ignore", invalid="ignore"):
        factors = (1 - step_size * eigenvalues) ** np.array(counts)[:, None]
        predicted = (factors * (v.T @ residual)) @ v.T
    if not np.isfinite(predicted).all():
        raise ValueError(
            f"steps: expected numbers at which the prediction is finite, got {max(counts)} steps "
            f"of {step_size:.3g}, with λ_max = {eigenvalues[-1]:.3g}"
        )
    return predicted


def _are_consistent(x, y) -> None:
    if pairs := contradictions(x, y):
        raise ValueError(
            "y: expected labels that a ReLU network can fit, "
            f"got contradictory ones for the parallel samples {_shown(pairs)}"
        )


def _side_by_side(params, step, c):
    """`difference_network`, unchecked, in NumPy."""
    moved = [w + dw / c for w, dw in zip(params, step, strict=True)]
    blocks = [
        np.hstack([moved[0], params[0]]),
        *map(scipy.linalg.block_diag, moved[1:-1], params[1:-1]),
        np.vstack([c * moved[-1], -c * params[-1]]),
    ]
    return tuple(map(_checks.on_device, blocks if len(params) > 1 else step))


def _least_norm_step(params, x, k, y):
    """`least_norm_step`, unchecked, from K̄; in NumPy."""
    eigenvalues, v = scipy.linalg.eigh(k, check_finite=False)
    kept = eigenvalues > rounding_error(k)
    alpha = v[:, kept] @ (v[:, kept].T @ y / eigenvalues[kept])
    return _pull_back(params, x, alpha)


def _pull_back(params, x, alpha, activation=relu):
    """Jᵀ α, a matrix for each weight matrix, without J; in NumPy."""
    features = feature_matrices(params, x, activation=activation)
    backward = backward_matrices(params, x, activation=activation)
    matrices = zip(features, backward, strict=True)
    return [np.asarray(f).T @ (alpha[:, None] * np.asarray(b)) for f, b in matrices]


def _largest(weights) -> float:
    return max(float(np.abs(w).max()) for w in weights)


def _power_of_two(number: float) -> float:
    """The largest one that is not larger; the smallest normal number for 0."""
    return 2.0 ** np.floor(np.log2(max(number, np.finfo(np.float64).tiny)))


def _shown(pairs, at_most: int = 10) -> str:
    more = f" and {len(pairs) - at_most} more" if len(pairs) > at_most else ""
    return f"{', '.join(map(str, pairs[:at_most]))}{more}"


def _in_double(params, *arrays):
    return jax.tree.map(lambda a: jnp.asarray(a, dtype=jnp.float64), (tuple(params), *arrays))


def _residual(params, x, y, activation=relu):
    return outputs(params, x, activation) - y


def _size(r):
    return r @ r / 2, jnp.abs(r).max()


@jax.jit
def _loss_and_error(params, x, y):
    return _size(_residual(params, x, y))


@jax.jit
def _levenberg_step(params, x, y, damping):
    r, pull_back = jax.vjp(lambda p: _residual(p, x, y), params)
    k = empirical_ntk(params, x)
    shift = damping * jnp.trace(k) / len(k)
    factor = jax.scipy.linalg.cho_factor(k + shift * jnp.eye(len(k)))
    (step,) = pull_back(jax.scipy.linalg.cho_solve(factor, r))
    trial = jax.tree.map(jnp.subtract, params, step)
    return trial, *_size(_residual(trial, x, y))


@functools.partial(jax.jit, static_argnums=5)
def _descend(params, x, y, step_sizes, tolerance, activation):
    """One step for each step size, none once the error is within the tolerance.

    Returns the weights after the steps, and loss, error and gradient norm before each of them.
    """

    def one_step(params, step_size):
        gradient, state = _gradient_and_state(params, x, y, activation)
        step_size = jnp.where(state[1] > tolerance, step_size, 0.0)
        return jax.tree.map(lambda w, g: w - step_size * g, params, gradient), state

    return jax.lax.scan(one_step, params, step_sizes)


def _flat_loss(theta, like, x, y, activation):
    """The loss of weights in one vector; `like` has their shapes."""
    return _size(_residual(ravel_pytree(like)[1](theta), x, y, activation))[0]


_gradient = jax.jit(jax.grad(_flat_loss), static_argnums=4)
_hessian = jax.jit(jax.hessian(_flat_loss), static_argnums=4)


@functools.partial(jax.jit, static_argnums=4)
def _adam(carry, x, y, learning_rate, activation):
    """A hundred steps of Adam; as well loss, error and gradient norm before each of them."""
    import optax

    optimizer = optax.adam(learning_rate)

    def one_step(carry, _):
        params, moments = carry
        gradient, state = _gradient_and_state(params, x, y, activation)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(params, updates), moments), state

    return jax.lax.scan(one_step, carry, length=100)


@functools.partial(jax.jit, static_argnums=3)
def _gradient_and_state(params, x, y, activation):
    """The gradient of the loss; loss, error and the norm of the gradient."""
    r, pull_back = jax.vjp(lambda p: _residual(p, x, y, activation), params)
    (gradient,) = pull_back(r)
    norm = jnp.sqrt(sum((g**2).sum() for g in gradient))
    return gradient, jnp.stack([*_size(r), norm])
