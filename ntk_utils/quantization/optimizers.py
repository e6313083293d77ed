"""Gradient descent, preconditioned descent and Newton's method of n nodes that exchange messages.

The nodes share a `Problem`: each has a shard of the data, and together they minimise f.

An exchange: every node sends a message with a quantity of its own, the leader, node 0, decodes and
averages them and sends one message back to everyone. Each message is encoded against the one before
on its way, so that few bits are enough for quantities that change slowly. With a `Lattice`, a
node's first message is decoded against the leader's own quantity, and the first answer against what
the node had sent; with `QSGD`, against 0.

| method | exchanged once | in each round | x ← x - … |
|---|---|---|---|
| `gradient_descent` | | ∇f_i | η v |
| `preconditioned_descent` | γ A_iᵀA_i/m_i + ρ I, on average S | S⁻¹∇f_i | η v |
| `newton` | | ∇²f_i, on average S; then S⁻¹∇f_i | η v |

v is the average as decoded, γ the largest value of ℓ''. For the squared loss S would be the Hessian
if nothing was rounded. Nodes are tasks of an executor and know of each other nothing but messages;
bits are counted on those: what n - 1 nodes send, and the answer once for each of them.

Source: Alimisis, Davies, Alistarh (ICML 2021, arXiv:2102.07214); the algorithms as we recall them,
  encoding against the message before also from the code that accompanies the paper. The rule for
  the accuracy of a message is ours.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils._progress import progress_bar
from ntk_utils.quantization import _codec, problems
from ntk_utils.quantization.messages import (
    QSGD,
    Exact,
    Label,
    Lattice,
    OutOfRange,
    Quantizer,
)
from ntk_utils.quantization.problems import Problem, Shard

LEADER = 0
"""The number of the node that averages."""

_MORE_BITS = 2  # what the leader asks for when it cannot decode a message, with one byte
_FINEST = 1e-12  # errors are never finer than this share of a node's own quantity: doubles end


class Run(NamedTuple):
    """What the nodes did: the start and T rounds."""

    x: Float[np.ndarray, "T+1 d"]
    """the leader's x, at the start and after each round"""
    bits: Int[np.ndarray, " T+1"]
    """bits in all messages until then; bits[0]: in what was exchanged once, before the rounds"""
    at_nodes: Float[np.ndarray, "n d"]
    """the last x, at each node"""

    def distances(self, x: Float[ArrayLike, " d"]) -> Float[np.ndarray, " times"]:
        """‖x_t - x‖ for t = 0, …, T, such as to the minimum. Shape (T+1,)."""
        return np.linalg.norm(self.x - _checks.labels("x", x), axis=1)


class RunInterrupted(KeyboardInterrupt):
    """What interrupted optimisation raises; `run` has the rounds that were completed."""

    def __init__(self, message: str, run: Run):
        super().__init__(message)
        self.run = run


class NodeFailed(RuntimeError):
    """A node raised an error or died; `run` has the rounds that were completed.

    `nodes` are the nodes that gave no answer: the one that raised the error, or, where a process of
    the executor died, all that may have been in it.
    """

    def __init__(self, message: str, nodes: list[int], run: Run | None = None):
        super().__init__(message)
        self.nodes = nodes
        self.run = run


def _problem(name: str, value) -> Problem:
    return _checks.instance_of(Problem)(name, value)


def _quantizer(name: str, value) -> Quantizer:
    if not isinstance(value, Quantizer):
        raise TypeError(f"{name}: expected Exact(), Lattice() or QSGD(), got {value!r}")
    return value


def _executor(name: str, value):
    if value is not None and not isinstance(value, concurrent.futures.Executor):
        raise TypeError(
            f"{name}: expected a concurrent.futures.Executor, got {type(value).__name__}"
        )
    return value


def _stop(name: str, value):
    if value is not None and not callable(value):
        raise TypeError(f"{name}: expected a function of x, got {type(value).__name__}")
    return value


_common = {
    "problem": _problem,
    "rounds": _checks.positive_integer,
    "vectors": _quantizer,
    "until": _stop,
    "key": _checks.none_or(_checks.random_key),
    "executor": _executor,
}
_second_order = {
    **_common,
    "step_size": _checks.positive_number,
    "mu": _checks.positive_number,
    "matrices": _quantizer,
}


@checked(**_common, step_size=_checks.none_or(_checks.positive_number))
def gradient_descent(
    problem: Problem,
    *,
    rounds: int,
    step_size: float | None = None,
    vectors: Quantizer = Lattice(),  # noqa: B008
    until: Callable | None = None,
    key=None,
    executor: concurrent.futures.Executor | None = None,
) -> Run:
    """Gradient descent: v is the average gradient, as decoded.

    With a `Lattice`, what is sent in a round has the error ε = θ ‖v‖, v that of the round before
    (in the first one the node's own gradient), which all nodes know.

    A run of more than two seconds shows a progress bar.

    Args:
      problem: f and who has which data.
      rounds: the largest number of rounds.
      step_size: η, which all nodes know; by default 1/λ_max of the majorant, from all data.
      vectors: how gradients are sent: `Lattice`, `QSGD`, or `Exact`.
      until: stops when until(x) is true after a round.
      key: random key, for `QSGD`.
      executor: where the nodes' tasks run, such as Dask's `client.get_executor()`; by default one
        after the other, here. It stays open. The result is the same.

    Raises:
      ValueError: no key with `QSGD`.
      NodeFailed: a task raised an error, or a process died; its `run` has the completed rounds.
      RunInterrupted: it was, as by Ctrl-C; its `run` has the completed rounds.
    """
    if step_size is None:
        step_size = 1 / float(np.linalg.eigvalsh(problem.majorant())[-1])
    plan = _Plan(step_size, vectors, vectors, None, _seed(key, vectors))
    return _run(problem, plan, ["gradient"], rounds, until, executor)


@checked(**(_second_order | {"mu": _checks.none_or(_checks.positive_number)}))
def preconditioned_descent(
    problem: Problem,
    *,
    rounds: int,
    mu: float | None = None,
    step_size: float = 1.0,
    vectors: Quantizer = Lattice(),  # noqa: B008
    matrices: Quantizer = Lattice(),  # noqa: B008
    until: Callable | None = None,
    key=None,
    executor: concurrent.futures.Executor | None = None,
) -> Run:
    """Descent that is preconditioned by S, the majorant γ AᵀA/m + ρ I as the nodes know it.

    With a `Lattice` of accuracy θ, all matrices are sent to an error θ μ in the Frobenius norm. If
    μ is at most the smallest eigenvalue of the majorant M, then (1 - 2θ) M ≤ S ≤ (1 + 2θ) M.
    Directions are sent as the gradients are in `gradient_descent`.

    `preconditioned_bound` says how fast x then approaches the minimum, for the squared loss.

    Args:
      problem: f and who has which data.
      rounds: the largest number of rounds.
      mu: μ, which all nodes know beforehand, as they know η; by default λ_min(M), from all data.
      step_size: η; 1 is safe for θ < 1/4, since no Hessian is larger than the majorant.
      vectors: how directions are sent.
      matrices: how matrices are sent, as vectors of their d(d+1)/2 different entries.
      until: stops when until(x) is true after a round.
      key: random key, for `QSGD`.
      executor: as in `gradient_descent`.

    Raises:
      ValueError: no key with `QSGD`; no μ where the majorant is singular.
      NodeFailed: as in `gradient_descent`; S is not positive definite, as when μ is too large.
      RunInterrupted: it was, as by Ctrl-C; its `run` has the completed rounds.

    Source: the algorithm is recalled from arXiv:2102.07214, where ε is chosen otherwise.
    """
    if mu is None:
        mu = float(np.linalg.eigvalsh(problem.majorant())[0])
        _checks.positive_number("mu, the smallest eigenvalue of the majorant", mu)
    plan = _Plan(step_size, vectors, matrices, mu, _seed(key, vectors, matrices))
    return _run(problem, plan, ["direction"], rounds, until, executor, once=["majorant"])


def best_step(
    method: Callable, problem: Problem, step_sizes: Iterable[float], **options
) -> tuple[float, Run]:
    """Run a method with each step size, and keep the one that leaves least of the cost.

    Args:
      method: `gradient_descent`, `preconditioned_descent` or `newton`.
      problem: f and who has which data.
      step_sizes: η, one or more.
      **options: all other arguments of the method.

    Returns: the step size η of the run with the least f after its last round, the first of equals,
      and that run. A run that has left the finite numbers is worse than any other.

    Raises:
      ValueError: no step size; what the method raises.
    """
    steps = _checks.iterable("step_sizes", step_sizes)
    if not steps:
        raise ValueError("step_sizes: expected one or more numbers, got none")
    runs = [method(problem, step_size=step, **options) for step in steps]
    ends = [run.x[-1] for run in runs]
    costs = [problem.value(x) if np.isfinite(x).all() else np.inf for x in ends]
    best = int(np.argmin(costs))
    return float(steps[best]), runs[best]


@checked(
    distances=_checks.labels,
    accuracy=_checks.positive_number,
    rounds=_checks.none_or(_checks.positive_integer),
)
def preconditioned_bound(
    distances: Float[ArrayLike, " _"], *, accuracy: float, rounds: int | None = None
) -> Float[np.ndarray, " _"]:
    """Bound the distances D_t = ‖x_t - x*‖ of `preconditioned_descent` from above, by D_0 and D_1.

        D_{t+1} ≤ a D_t + 2θ s_t,   s_{t+1} = max(D_t + D_{t+1}, θ s_t),   a = 2θ/(1 - 2θ),

    for the squared loss, η = 1, and μ ≤ λ_min(M). No condition number enters.

    Derived here: x_t - x* is multiplied by I - S⁻¹M, of norm ≤ a since ‖S - M‖ ≤ 2θμ. Then an error
    is subtracted that is at most θ s_t on the way to the leader and as much on the way back, where
    s_t = max(‖v_t‖, θ s_{t-1}) with v_t = x_{t-1} - x_t.

    Args:
      distances: D_0, D_1, …; only the first two are used.
      accuracy: θ of vectors and of matrices, below 1/2.
      rounds: T; by default as many as there are distances.

    Returns: upper bounds on D_0, …, D_T, shape (T+1,).

    Raises:
      ValueError: fewer than two distances, or a negative one; accuracy >= 1/2, for which nothing
        follows.
    """
    if len(distances) < 2 or distances.min() < 0:
        raise ValueError(f"distances: expected at least two, none negative, got {distances}")
    if accuracy >= 0.5:
        raise ValueError(f"accuracy: expected a number below 1/2, got {accuracy}")
    rounds = rounds or len(distances) - 1
    a, bounds, size = 2 * accuracy / (1 - 2 * accuracy), list(distances[:2]), sum(distances[:2])
    while len(bounds) <= rounds:
        bounds.append(a * bounds[-1] + 2 * accuracy * size)
        size = max(bounds[-1] + bounds[-2], accuracy * size)
    return np.array(bounds[: rounds + 1])


@checked(**_second_order)
def newton(
    problem: Problem,
    *,
    mu: float,
    rounds: int,
    step_size: float = 1.0,
    vectors: Quantizer = Lattice(),  # noqa: B008
    matrices: Quantizer = Lattice(),  # noqa: B008
    until: Callable | None = None,
    key=None,
    executor: concurrent.futures.Executor | None = None,
) -> Run:
    """Newton's method: in each round the Hessian is exchanged, then the Newton direction.

    Convergence is local. Arguments, errors and encoding are those of `preconditioned_descent`, with
    the Hessian for the majorant; μ is at most its smallest eigenvalue, everywhere, such as ρ.

    Source: the algorithm is recalled from arXiv:2102.07214, where ε is chosen otherwise.
    """
    plan = _Plan(step_size, vectors, matrices, mu, _seed(key, vectors, matrices))
    return _run(problem, plan, ["hessian", "direction"], rounds, until, executor)


def _seed(key, *quantizers) -> list[int]:
    """Whole numbers that seed the generators of random roundings."""
    if key is None and any(isinstance(q, QSGD) for q in quantizers):
        raise ValueError("key: expected a random key for QSGD, which rounds at random, got None")
    return [] if key is None else problems.random_words(key)


def _as_vector(matrix) -> np.ndarray:
    """The upper triangle, ×√2 off the diagonal: the norm is the matrix's Frobenius norm."""
    rows, columns = np.triu_indices(len(matrix))
    return matrix[rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2))


def _as_matrix(vector, d) -> np.ndarray:
    rows, columns = np.triu_indices(d)
    matrix = np.zeros((d, d))
    matrix[rows, columns] = vector / np.where(rows == columns, 1.0, np.sqrt(2))
    return matrix + np.triu(matrix, 1).T


_MATRICES = {"majorant": Shard.majorant, "hessian": Shard.hessian}


class _Plan(NamedTuple):
    """What all nodes know from the start."""

    step_size: float
    vectors: Quantizer
    matrices: Quantizer
    mu: float | None
    seed: list[int]


@dataclass
class _Node:
    """What a node has. A task of an executor takes it and gives it back."""

    name: int
    shard: Shard
    plan: _Plan
    x: np.ndarray
    factor: tuple | None = None
    """Cholesky factor of S"""
    scale: float | None = None
    """the size that the next vector is expected to have, known to all nodes"""
    answers: dict[str, np.ndarray] = field(default_factory=dict)
    """the leader's last "vector" and "matrix", as decoded"""
    said: dict[tuple[int, str], np.ndarray] = field(default_factory=dict)
    """what this node said last, as the leader decoded it; at the leader: what each node said"""
    exchange: int = -1
    kind: str = ""
    """"vector" or "matrix": what the present exchange is about"""
    own: np.ndarray | None = None
    """the node's own quantity in the present exchange"""
    bits: int = 0
    """how many bits a coordinate it has sent in the present exchange"""
    residues: dict[int, np.ndarray] = field(default_factory=dict)
    """at the leader: what is known of quantities that it cannot decode yet"""

    @property
    def quantizer(self) -> Quantizer:
        return self.plan.vectors if self.kind == "vector" else self.plan.matrices

    def label(self, sender: int) -> Label:
        return Label(sender, self.exchange)

    def reference(self, known: dict, name, otherwise) -> np.ndarray | None:
        """What was decoded before; the first time, for a lattice, a vector that is near."""
        if not isinstance(self.quantizer, Lattice):
            return known.get(name, 0 * self.own)
        return known.get(name, otherwise) if self.quantizer.memory else 0 * self.own

    def epsilon(self, value) -> float:
        """The error of a lattice message."""
        if self.kind == "matrix":
            return self.quantizer.accuracy * self.plan.mu
        expected = np.linalg.norm(value) if self.scale is None else self.scale
        finest = _FINEST * np.linalg.norm(self.own)
        return self.quantizer.accuracy * (max(expected, finest) or 1.0)

    def encode(self, value, references) -> tuple[bytes, np.ndarray]:
        """A message for receivers with these references, and the value as they decode it."""
        label, quantizer = self.label(self.name), self.quantizer
        if isinstance(quantizer, Exact):
            return _codec.encode_exact(value, label), value
        if isinstance(quantizer, QSGD):
            # not the seed of who draws data by the same key: trailing zeros would not count
            rng = np.random.default_rng([1, *label, *self.plan.seed])
            message = _codec.encode_qsgd(value - references[0], quantizer.bits, rng, label)
            return message, self.decode(message, label, references[0])
        exponent = _codec.lattice_exponent(self.epsilon(value), len(value))
        coordinates, after = _codec.lattice_coordinates(value, exponent), self.bits
        if references:
            self.bits = _codec.lattice_bits(coordinates, references, exponent)
        else:
            self.bits = after + _MORE_BITS if after else quantizer.first_bits
            if after > _codec.MOST_BITS:
                raise ValueError(
                    "shards: expected quantities that doubles can tell from the leader's, to the "
                    f"error that is asked for, got one of length {np.linalg.norm(value):.3g}"
                )
        message = _codec.encode_lattice(coordinates, exponent, self.bits, label, after)
        return message, _codec.lattice_point(coordinates, exponent)

    def decode(self, message, label, reference, residues=None) -> np.ndarray:
        value = _codec.decode(message, label, reference, residues)
        return reference + value if isinstance(self.quantizer, QSGD) else value


def _turn(node: _Node, answer: bytes | None, quantity: str | None) -> tuple[_Node, bytes | None]:
    """A node takes the answer to the last exchange, and says its part in the next one."""
    if answer is not None:
        reference = node.reference(node.answers, node.kind, node.said.get((node.name, node.kind)))
        _accept(node, node.decode(answer, node.label(LEADER), reference))
    if quantity is None:
        return node, None
    node.exchange, node.bits = node.exchange + 1, 0
    if quantity in _MATRICES:
        node.kind, node.own = "matrix", _as_vector(_MATRICES[quantity](node.shard, node.x))
    else:
        node.kind, node.own = "vector", node.shard.gradient(node.x)
    if quantity == "direction":
        node.own = scipy.linalg.cho_solve(node.factor, node.own, check_finite=False)
    return node, None if node.name == LEADER else _say(node)[1]


def _say(node: _Node) -> tuple[_Node, bytes]:
    """A node sends its quantity, or further bits of it."""
    name = node.name, node.kind
    # the first time the reference is the leader's own quantity, which the node does not know
    reference = node.reference(node.said, name, None)
    references = [] if reference is None or node.bits else [reference]
    message, node.said[name] = node.encode(node.own, references)
    return node, message


def _listen(leader: _Node, sent: dict[int, bytes]) -> tuple[_Node, list[int]]:
    """The leader decodes what nodes have sent; returns those of which it needs more bits."""
    again = []
    for i, message in sent.items():
        reference = leader.reference(leader.said, (i, leader.kind), leader.own)
        try:
            value = leader.decode(message, leader.label(i), reference, leader.residues.get(i))
        except OutOfRange as error:
            leader.residues[i] = error.residues
            again.append(i)
        else:
            leader.said[i, leader.kind] = value
            leader.residues.pop(i, None)
    return leader, again


def _answer(leader: _Node, n: int) -> tuple[_Node, bytes]:
    """The leader sends the average to everyone."""
    said = [leader.said[i, leader.kind] for i in range(1, n)]
    average = (leader.own + sum(said)) / n
    # the first answer is decoded by each node against what it said itself
    near = said[:1] if leader.kind in leader.answers else said
    references = [leader.reference(leader.answers, leader.kind, value) for value in near]
    message, value = leader.encode(average, references)
    _accept(leader, value)
    return leader, message


def _accept(node: _Node, value) -> None:
    """What all nodes do with an answer."""
    node.answers[node.kind] = value
    if node.kind == "vector":
        node.x = node.x - node.plan.step_size * value
        # a vector that is rounded to 0 does not make the next one infinitely fine
        share = node.quantizer.accuracy if isinstance(node.quantizer, Lattice) else 0.0
        node.scale = max(np.linalg.norm(value), share * (node.scale or 0.0))
        return
    try:
        node.factor = scipy.linalg.cho_factor(_as_matrix(value, len(node.x)))
    except np.linalg.LinAlgError as error:
        raise ValueError(
            "mu: expected at most the smallest eigenvalue of the matrices, got "
            f"{node.plan.mu:.3g}: the average, as decoded, is not positive definite"
        ) from error


def _run(problem: Problem, plan, quantities, rounds, until, executor, once=()) -> Run:
    """Exchange the quantities in each round; those of `once` before the first."""
    team = _Team(problem, plan, executor)
    x, bits, interruption = [team.nodes[LEADER].x], [], None
    try:
        with progress_bar(rounds, unit=" rounds", delay=2) as bar:
            for quantity in once:
                team.exchange(quantity)
            bits.append(team.bits)
            while len(bits) <= rounds:
                for quantity in quantities:
                    team.exchange(quantity)
                x.append(team.nodes[LEADER].x)
                bits.append(team.bits)
                bar.update()
                if until is not None and until(x[-1]):
                    break
            team.turn(None)
    except (KeyboardInterrupt, NodeFailed) as error:
        interruption = error
    bits = bits or [team.bits]
    x = x[: len(bits)]
    run = Run(np.array(x), np.array(bits), np.array([node.x for node in team.nodes]))
    if isinstance(interruption, NodeFailed):
        interruption.run = run
        raise interruption
    if interruption:
        message = f"after {len(bits) - 1} of {rounds} rounds; they are in its attribute `run`"
        raise RunInterrupted(message, run) from interruption
    return run


class _Team:
    """The nodes, and the executor to which their tasks go; only messages pass between them."""

    def __init__(self, problem: Problem, plan: _Plan, executor):
        start = np.zeros(problem.dim)
        self.nodes = [_Node(i, part, plan, start) for i, part in enumerate(problem.parts)]
        self.executor = executor
        self.answer = None
        self.bits = 0
        self.exchanges = 0

    def exchange(self, quantity: str) -> None:
        """Every node says its quantity, and hears the average."""
        said = self.turn(quantity)
        said.pop(LEADER)
        self.exchanges += 1
        while said:
            self.bits += 8 * sum(len(message) for message in said.values())
            again = self._do(_listen, {LEADER: (said,)})[LEADER]
            self.bits += 8 * len(again)
            said = self._do(_say, {i: () for i in again})
        self.answer = self._do(_answer, {LEADER: (len(self.nodes),)})[LEADER]
        self.bits += 8 * len(self.answer) * (len(self.nodes) - 1)

    def turn(self, quantity: str | None) -> dict[int, bytes | None]:
        """All nodes take the last answer, and say the quantity."""
        answers = {i: None if i == LEADER else self.answer for i in range(len(self.nodes))}
        return self._do(_turn, {i: (answer, quantity) for i, answer in answers.items()})

    def _do(self, task: Callable, arguments: dict[int, tuple]) -> dict[int, bytes | list | None]:
        """Run a task at some of the nodes, and keep the nodes as it leaves them."""
        submit = self.executor.submit if self.executor else _at_once
        pending, results, failures = {}, {}, {}
        try:
            for i, rest in arguments.items():
                pending[i] = submit(task, self.nodes[i], *rest)
        except RuntimeError as error:  # it is broken, or was shut down
            failures = dict.fromkeys(arguments.keys() - pending.keys(), error)
        for i, future in pending.items():
            try:
                self.nodes[i], results[i] = future.result()
            except Exception as error:
                failures[i] = error
        if failures:
            names = ", ".join(map(str, sorted(failures)))
            error = next(iter(failures.values()))
            raise NodeFailed(
                f"node {names}, exchange {self.exchanges}: {type(error).__name__}: {error}",
                sorted(failures),
            ) from error
        return results


def _at_once(task, *arguments) -> concurrent.futures.Future:
    future = concurrent.futures.Future()
    try:
        future.set_result(task(*arguments))
    except Exception as error:
        future.set_exception(error)
    return future
