"""Nodes that exchange messages: what they compute, what it costs, and what stops them."""

import concurrent.futures
import itertools
import os
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import jax
import numpy as np
import pytest

from ntk_utils.quantization import _codec, optimizers, problems
from ntk_utils.quantization.messages import QSGD, Exact, Lattice
from ntk_utils.quantization.optimizers import NodeFailed, RunInterrupted
from ntk_utils.quantization.problems import Problem

SEEDS = range(4)
KEY = jax.random.key(7)
THETA = 1 / 32
EXACT = {"vectors": Exact(), "matrices": Exact()}


def least_squares(seed=0, kappa=16, d=10, n=4):
    return problems.least_squares(jax.random.key(seed), np.geomspace(1, 1 / kappa, d), n)


def logistic(seed=0, ridge=0.1, d=6, n=3):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((40 * n, d)) * np.geomspace(1, 4, d)
    b = (a[:, 0] + rng.standard_normal(len(a)) > 0).astype(float)
    return Problem(problems.split(jax.random.key(seed), a, b, n), loss="logistic", ridge=ridge)


def distances(run, problem):
    return run.distances(problem.minimum())


def near(problem, tolerance=1e-4):
    best = problem.minimum()
    return lambda x: np.linalg.norm(x - best) <= tolerance * np.linalg.norm(best)


def mu_of(problem):
    return float(np.linalg.eigvalsh(problem.majorant())[0])


METHODS = {
    "gradient_descent": {},
    "preconditioned_descent": {},
    "newton": {"mu": 0.01},
}
for_each_method = pytest.mark.parametrize("name", METHODS)


def run(name, problem, rounds=6, **options):
    return getattr(optimizers, name)(problem, rounds=rounds, **METHODS[name], **options)


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# --- what they compute ----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [least_squares, logistic])
@pytest.mark.parametrize("seed", SEEDS)
def test_exact_messages_make_the_methods_of_the_textbook(make, seed):
    p = make(seed)
    steps = {
        "gradient_descent": lambda x: p.gradient(x) / np.linalg.eigvalsh(p.majorant())[-1],
        "preconditioned_descent": lambda x: np.linalg.solve(p.majorant(), p.gradient(x)),
        "newton": lambda x: np.linalg.solve(p.hessian(x), p.gradient(x)),
    }
    for name, step in steps.items():
        exact = {"vectors": Exact()} if name == "gradient_descent" else EXACT
        found, x = run(name, p, **exact), np.zeros(p.dim)
        for row in found.x:
            np.testing.assert_allclose(row, x, rtol=1e-12, atol=1e-12)
            x = x - step(x)


@for_each_method
@pytest.mark.parametrize("quantizer", [Exact(), Lattice(), QSGD(8)])
def test_all_nodes_have_the_same_x_to_the_last_bit(name, quantizer):
    found = run(name, logistic(), vectors=quantizer, key=KEY)
    assert (found.at_nodes == found.x[-1]).all()
    assert (np.diff(found.x, axis=0) != 0).any(axis=1).all()


def test_a_symmetric_matrix_travels_as_a_vector_with_its_frobenius_norm():
    b = np.random.default_rng(0).standard_normal((5, 5))
    vector = optimizers._as_vector(b + b.T)
    assert vector.shape == (15,)
    assert np.linalg.norm(vector) == pytest.approx(np.linalg.norm(b + b.T), rel=1e-12)
    np.testing.assert_allclose(optimizers._as_matrix(vector, 5), b + b.T, rtol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("accuracy", [1 / 4, 1 / 32])
def test_the_preconditioner_is_within_its_error_of_the_majorant_and_not_far_within(seed, accuracy):
    p = least_squares(seed, kappa=100)
    team = optimizers._Team(
        p, optimizers._Plan(1.0, Exact(), Lattice(accuracy), mu_of(p), []), None
    )
    team.exchange("majorant")
    team.turn(None)
    for node in team.nodes:
        error = optimizers._as_matrix(node.answers["matrix"], p.dim) - p.majorant()
        assert accuracy / 10 < np.linalg.norm(error) / mu_of(p) <= 2 * accuracy
        upper = np.triu(node.factor[0])
        np.testing.assert_allclose(upper.T @ upper, p.majorant() + error, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kappa", [4, 64, 1024])
def test_preconditioned_descent_keeps_to_its_bound_which_is_not_vacuous(seed, kappa):
    p = least_squares(seed, kappa)
    d = distances(run("preconditioned_descent", p, until=near(p)), p)
    bound = optimizers.preconditioned_bound(d, accuracy=THETA)
    assert (d <= bound * (1 + 1e-12)).all()
    assert d[-1] <= 1e-4 * d[0]
    allowed = optimizers.preconditioned_bound(d, accuracy=THETA, rounds=30)
    assert (allowed > 1e-4 * d[0]).sum() <= 10


@pytest.mark.parametrize("seed", SEEDS)
def test_directions_with_errors_as_large_as_themselves_do_not_converge(seed):
    p = least_squares(seed)
    fine, coarse = (
        distances(run("preconditioned_descent", p, rounds=30, vectors=Lattice(accuracy)), p)
        for accuracy in (1 / 4, 1.0)
    )
    assert fine[-1] < 1e-10 * fine[0]
    assert coarse[-1] > 0.05 * coarse[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_bound_is_left_if_mu_is_much_too_large(seed):
    p = least_squares(seed, kappa=64)
    try:
        d = distances(run("preconditioned_descent", p, rounds=20, mu=300 / 64), p)
    except NodeFailed as failure:
        assert "not positive definite" in str(failure)  # noqa: PT017
    else:
        bound = optimizers.preconditioned_bound(d, accuracy=THETA)
        assert (d > bound).any()


def test_the_bound_is_what_its_recursion_says():
    a = 2 * 0.1 / (1 - 2 * 0.1)
    third = a * 1.0 + 0.2 * 3.0
    fourth = a * third + 0.2 * (1.0 + third)
    found = optimizers.preconditioned_bound([2.0, 1.0], accuracy=0.1, rounds=3)
    np.testing.assert_allclose(found, [2.0, 1.0, third, fourth])
    # a step that was rounded to zero leaves θ times the last size
    coarse = optimizers.preconditioned_bound([1.0, 0.0, 9.0], accuracy=0.1)
    np.testing.assert_allclose(coarse, [1.0, 0.0, 0.2])


@pytest.mark.parametrize("seed", [0, 1])
def test_rounds_of_descent_grow_with_the_condition_number_and_preconditioned_ones_do_not(seed):
    rounds = {}
    for kappa in (8, 128):
        p = least_squares(seed, kappa)
        rounds[kappa] = [
            len(run(name, p, rounds=3000, until=near(p)).x) - 1
            for name in ("gradient_descent", "preconditioned_descent")
        ]
    assert rounds[128][0] > 8 * rounds[8][0]
    assert rounds[128][1] <= rounds[8][1] + 1
    assert rounds[128][1] <= 8


@pytest.mark.parametrize("seed", SEEDS)
def test_quantized_descent_takes_the_rounds_of_exact_descent(seed):
    p = least_squares(seed)
    exact, quantized = (
        len(run("gradient_descent", p, rounds=1000, until=near(p), vectors=q).x)
        for q in (Exact(), Lattice())
    )
    assert abs(exact - quantized) <= 0.05 * exact


@pytest.mark.parametrize("seed", SEEDS)
def test_newton_reaches_the_minimum_of_logistic_regression_in_a_few_rounds(seed):
    p = logistic(seed, ridge=0.001)
    d = distances(optimizers.newton(p, mu=p.ridge, rounds=15), p)
    assert d[-1] < 1e-9 * d[0]
    slow = distances(run("preconditioned_descent", p, rounds=15), p)
    assert slow[-1] > 1e-6 * slow[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_qsgd_on_differences_converges_and_follows_its_key(seed):
    p = least_squares(seed)
    options = {"rounds": 20, "vectors": QSGD(8)}
    one, again, other = (
        run("preconditioned_descent", p, key=jax.random.key(i), **options) for i in (1, 1, 2)
    )
    assert distances(one, p)[-1] < 1e-10 * distances(one, p)[0]
    assert same(one, again)
    assert not np.array_equal(one.x, other.x)


def test_a_shard_with_fewer_samples_than_unknowns_and_one_of_zeros_are_accepted():
    (a, b), *others = least_squares().shards
    p = Problem([(a[:3], b[:3]), (0 * a, 0 * b), *others])
    assert distances(run("preconditioned_descent", p, rounds=10), p)[-1] < 1e-5


@for_each_method
def test_the_distances_of_a_run_are_those_of_each_round(name):
    p = least_squares()
    found, x = run(name, p), np.arange(10.0)
    expected = [np.linalg.norm(x_t - x) for x_t in found.x]
    np.testing.assert_allclose(found.distances(x), expected, rtol=1e-14)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_best_step_of_descent_out_of_powers_of_two_is_the_largest_that_converges(seed):
    p, exact = least_squares(seed), {"rounds": 30, "vectors": Exact()}
    steps = np.array([0.25, 4, 1, 0.5]) / np.linalg.eigvalsh(p.majorant())[-1]
    step, best = optimizers.best_step(optimizers.gradient_descent, p, steps, **exact)
    # all |1 - ηλ| fall with η up to 1/λ_max; with 4/λ_max the largest is 3
    assert step == steps[2]
    assert np.array_equal(best.x, optimizers.gradient_descent(p, step_size=step, **exact).x)


def test_a_step_that_leaves_the_finite_numbers_is_worse_than_any_other():
    p, options = least_squares(), {"rounds": 9, "vectors": Exact()}
    with np.errstate(over="ignore", invalid="ignore"):
        lost = run("gradient_descent", p, step_size=1e200, **options)
        step, _ = optimizers.best_step(optimizers.gradient_descent, p, [1e200, 0.1], **options)
    assert not np.isfinite(lost.x[-1]).any()
    assert step == 0.1


@for_each_method
def test_a_run_goes_on_where_doubles_end(name):
    p = least_squares(kappa=2)
    found = run(name, p, rounds=120)
    assert len(found.x) == 121
    assert distances(found, p)[-1] < 1e-10


@for_each_method
def test_a_start_at_the_minimum_stays_there(name):
    shards = [(a, 0 * b) for a, b in least_squares().shards]
    found = run(name, Problem(shards))
    assert (found.x == 0).all()


def test_a_run_stops_when_it_is_told_and_sees_every_x():
    seen = []
    found = run(
        "gradient_descent", least_squares(), until=lambda x: seen.append(x) or len(seen) == 3
    )
    assert np.array_equal(seen, found.x[1:])
    assert len(found.bits) == 4


# --- what it costs --------------------------------------------------------------------------------


@pytest.fixture
def sent(monkeypatch):
    """All messages that are encoded, with their senders."""
    record = []

    def spy(name):
        original = getattr(_codec, name)

        def encode(*args):
            message = original(*args)
            label = next(a for a in args if isinstance(a, _codec.Label))
            record.append((label.sender, label.number, message))
            return message

        monkeypatch.setattr(_codec, name, encode)

    for name in ("encode_exact", "encode_lattice", "encode_qsgd"):
        spy(name)
    return record


@for_each_method
@pytest.mark.parametrize("quantizer", [Exact(), Lattice(first_bits=2), QSGD(6)])
def test_bits_are_those_of_all_messages_the_leaders_once_for_each_other_node(name, quantizer, sent):
    p = logistic(n=4)
    found = run(name, p, vectors=quantizer, key=KEY)
    times = {0: 3, 1: 1, 2: 1, 3: 1}
    travelled = sum(8 * times[sender] * len(message) for sender, _, message in sent)
    exchanges = len({number for _, number, _ in sent})
    requests = len(sent) - 4 * exchanges
    travelled += 8 * requests
    # of the leader there is one message in each exchange, of every other node one or more
    assert [sender for sender, _, _ in sent].count(0) == exchanges
    assert found.bits[-1] == travelled
    assert (np.diff(found.bits) > 0).all()
    assert (found.bits[0] > 0) == (name == "preconditioned_descent")


def test_a_first_message_that_the_leader_cannot_decode_is_followed_by_further_bits(sent):
    p = least_squares(kappa=1000)
    short, long = (
        run("preconditioned_descent", p, matrices=Lattice(THETA, first_bits=b)) for b in (3, 40)
    )
    assert np.array_equal(short.x, long.x)
    assert short.bits[0] < long.bits[0]
    of_first = [sender for sender, number, _ in sent[: len(sent) // 2] if number == 0]
    assert of_first.count(1) > 3


@pytest.mark.parametrize("quantizer", [Lattice(first_bits=1), QSGD(8)])
@pytest.mark.parametrize("size", [1.0, 1e6])
def test_bits_are_for_what_nodes_differ_by_and_not_for_what_they_have_in_common(
    quantizer, size, sent
):
    a, b = least_squares().shards[0]
    p = Problem([(a, size * b)] * 4)
    run("preconditioned_descent", p, vectors=quantizer, matrices=Lattice(first_bits=1), key=KEY)
    of_nodes = [(number, len(message)) for sender, number, message in sent if sender]
    assert len(of_nodes) == 3 * 7
    assert of_nodes[:3] == [(0, 13 + 7)] * 3
    assert isinstance(quantizer, QSGD) or of_nodes[3:6] == [(1, 13 + 2)] * 3


@pytest.mark.parametrize("seed", SEEDS)
def test_memory_keeps_messages_short_while_x_converges(seed):
    p = least_squares(seed)
    found = run("preconditioned_descent", p, rounds=12)
    per_round = np.diff(found.bits)
    assert distances(found, p)[-1] < 1e-8
    assert per_round[-3:].mean() < 1.2 * per_round[1:4].mean()


@for_each_method
def test_without_memory_the_same_run_costs_more_bits_with_every_round(name):
    p = least_squares()
    with_it, without = (
        run(name, p, rounds=12, vectors=Lattice(THETA, memory=memory)) for memory in (True, False)
    )
    assert np.array_equal(with_it.x, without.x)
    more = np.diff(without.bits) - np.diff(with_it.bits)
    assert (more[-3:] > 0).all()
    assert name == "gradient_descent" or more[-1] > more[3] + 8 * p.dim


def test_quantities_that_doubles_cannot_tell_apart_are_refused():
    shards = least_squares().shards
    far = [(1e12 * shards[0][0], shards[0][1]), *shards[1:]]
    with pytest.raises(NodeFailed, match="doubles can"):
        run("preconditioned_descent", Problem(far), mu=1e-3)


# --- where they run -------------------------------------------------------------------------------


@for_each_method
def test_threads_give_the_same_run(name):
    p = logistic()
    with ThreadPoolExecutor(3) as executor:
        assert same(run(name, p, executor=executor), run(name, p))


@pytest.fixture(scope="module")
def spawned():
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        yield executor


@for_each_method
def test_spawned_processes_give_the_same_run(name, spawned):
    p = logistic()
    options = {"vectors": QSGD(8), "key": KEY}
    assert same(run(name, p, executor=spawned, **options), run(name, p, **options))


def test_a_dask_cluster_gives_the_same_run():
    from distributed import Client, LocalCluster

    p = logistic()
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        found = run("preconditioned_descent", p, executor=client.get_executor())
    assert same(found, run("preconditioned_descent", p))


# --- what stops them ------------------------------------------------------------------------------


def stopped(*_):
    raise OSError("no disk")


def killed(*_):
    os._exit(1)


class Saboteur(concurrent.futures.Executor):
    """Gives every task to another executor, but one of a node another task."""

    def __init__(self, executor, node, at, instead):
        self.executor, self.node, self.instead = executor, node, instead
        self.countdown = itertools.count(at, -1)

    def submit(self, task, node, *rest):
        if node.name == self.node and next(self.countdown) == 0:
            task = self.instead
        return self.executor.submit(task, node, *rest)


@for_each_method
@pytest.mark.parametrize(("node", "task"), [(0, 14), (2, 5)])
def test_a_node_that_fails_is_named_and_no_round_is_lost(name, node, task):
    p, undisturbed = logistic(), run(name, logistic())
    with ThreadPoolExecutor(2) as executor:
        saboteur = Saboteur(executor, node, task, stopped)
        with pytest.raises(NodeFailed, match=f"node {node}, .*OSError: no disk") as failure:
            run(name, p, executor=saboteur)
    assert failure.value.nodes == [node]
    done = failure.value.run
    assert 0 < len(done.bits) - 1 < 6
    assert np.array_equal(done.x, undisturbed.x[: len(done.x)])
    assert np.array_equal(done.bits, undisturbed.bits[: len(done.bits)])


def test_a_process_that_dies_is_named_with_those_that_may_have_been_in_it():
    undisturbed = run("gradient_descent", logistic())
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        saboteur = Saboteur(executor, 2, 4, killed)
        with pytest.raises(NodeFailed, match=r"2.*BrokenProcessPool") as failure:
            run("gradient_descent", logistic(), executor=saboteur)
    assert 2 in failure.value.nodes
    done = failure.value.run
    assert 1 < len(done.x) < 6
    assert np.array_equal(done.x, undisturbed.x[: len(done.x)])


def test_an_interrupted_run_keeps_its_rounds():
    undisturbed, calls = run("gradient_descent", least_squares()), itertools.count(1)

    def interrupt(_):
        if next(calls) == 4:
            raise KeyboardInterrupt
        return False

    with pytest.raises(RunInterrupted, match="after 4 of 6 rounds") as interruption:
        run("gradient_descent", least_squares(), until=interrupt)
    assert np.array_equal(interruption.value.run.x, undisturbed.x[:5])
    assert np.array_equal(interruption.value.run.bits, undisturbed.bits[:5])


def test_a_mu_that_is_far_too_large_stops_a_run_and_says_so():
    with pytest.raises(NodeFailed, match="mu: expected at most the smallest eigenvalue") as failure:
        run("preconditioned_descent", least_squares(kappa=1000), mu=100.0)
    assert len(failure.value.run.x) == 1
    assert failure.value.run.bits[0] > 0


def test_an_executor_that_broke_before_is_named_with_all_nodes():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        with pytest.raises(BrokenExecutor):
            executor.submit(os._exit, 1).result()
        with pytest.raises(NodeFailed, match="node 0, 1, 2, exchange 0: BrokenProcess") as failure:
            run("gradient_descent", logistic(), executor=executor)
    assert failure.value.nodes == [0, 1, 2]
    assert np.array_equal(failure.value.run.x, np.zeros((1, 6)))
    assert failure.value.run.bits.tolist() == [0]


class ShutDown(concurrent.futures.Executor):
    """Is shut down by somebody else after some tasks."""

    def __init__(self, executor, after):
        self.executor, self.countdown = executor, itertools.count(after, -1)

    def submit(self, task, *arguments):
        if next(self.countdown) == 0:
            self.executor.shutdown()
        return self.executor.submit(task, *arguments)


def test_an_executor_that_is_shut_down_does_not_lose_the_rounds():
    undisturbed = run("gradient_descent", logistic())
    with ThreadPoolExecutor(2) as executor:
        try:
            run("gradient_descent", logistic(), executor=ShutDown(executor, 17))
        except NodeFailed as failure:
            done = failure.run
    assert 1 < len(done.x) < 6
    assert np.array_equal(done.x, undisturbed.x[: len(done.x)])


def test_an_interruption_before_the_first_round_leaves_the_start():
    def interrupt(*_):
        raise KeyboardInterrupt

    class Interrupted(concurrent.futures.Executor):
        submit = interrupt

    for name in METHODS:
        with pytest.raises(RunInterrupted, match="after 0 of 6 rounds") as interruption:
            run(name, logistic(), executor=Interrupted())
        assert np.array_equal(interruption.value.run.x, np.zeros((1, 6)))


@for_each_method
def test_an_interruption_within_a_round_keeps_the_rounds_before(name):
    undisturbed = run(name, logistic())

    class Interrupted(Saboteur):
        def submit(self, task, node, *rest):
            if node.name == self.node and next(self.countdown) == 0:
                raise KeyboardInterrupt
            return self.executor.submit(task, node, *rest)

    with (
        ThreadPoolExecutor(2) as executor,
        pytest.raises(RunInterrupted) as interruption,
    ):
        run(name, logistic(), executor=Interrupted(executor, 0, 14, None))
    done = interruption.value.run
    assert 1 < len(done.x) < 7
    assert f"after {len(done.x) - 1} of 6 rounds" in str(interruption.value)
    assert np.array_equal(done.x, undisturbed.x[: len(done.x)])
    assert np.array_equal(done.bits, undisturbed.bits[: len(done.bits)])


P = least_squares()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: run("gradient_descent", P, rounds=0), ValueError, "rounds: expected an integer"),
        (lambda: run("gradient_descent", P, step_size=-1.0), ValueError, "step_size: expected"),
        (lambda: run("gradient_descent", P, vectors=QSGD(4)), ValueError, "key: expected a random"),
        (lambda: run("preconditioned_descent", P, mu=0.0), ValueError, "mu: expected .* > 0"),
        (
            lambda: run("preconditioned_descent", Problem([(np.ones((3, 2)), np.ones(3))] * 2)),
            ValueError,
            "mu, the smallest eigenvalue of the majorant: expected",
        ),
        (
            lambda: optimizers.preconditioned_bound([1.0, 1.0], accuracy=0.5),
            ValueError,
            "accuracy: expected a number below 1/2, got 0.5",
        ),
        (
            lambda: optimizers.preconditioned_bound([1.0], accuracy=0.1),
            ValueError,
            "distances: expected at least two, none negative",
        ),
        (
            lambda: optimizers.preconditioned_bound([1.0, -1.0], accuracy=0.1),
            ValueError,
            "distances: expected at least two, none negative",
        ),
    ],
)
def test_bad_input_is_named_with_what_was_expected_and_what_came(call, error, message):
    with pytest.raises(error, match=message):
        call()


WRONG = {
    "problem": [([(1, 2)], TypeError, "expected Problem, got list")],
    "rounds": [
        (0, ValueError, "expected an integer >= 1, got 0"),
        (2.0, TypeError, "expected an integer, got 2.0"),
    ],
    "step_size": [
        (0.0, ValueError, "expected a finite number > 0, got 0"),
        (-1.0, ValueError, "expected a finite number > 0, got -1"),
        (np.inf, ValueError, "expected a finite number > 0, got inf"),
        ("1", TypeError, "expected a real number, got '1'"),
    ],
    "mu": [
        (0.0, ValueError, "expected a finite number > 0, got 0"),
        (np.nan, ValueError, "expected a finite number > 0, got nan"),
        ([1.0], TypeError, r"expected a real number, got \[1.0\]"),
    ],
    "vectors": [
        (8, TypeError, r"expected Exact\(\), Lattice\(\) or QSGD\(\), got 8"),
        (Lattice, TypeError, r"expected Exact\(\), Lattice\(\) or QSGD\(\), got <class"),
    ],
    "matrices": [(None, TypeError, r"expected Exact\(\), Lattice\(\) or QSGD\(\), got None")],
    "until": [(3, TypeError, "expected a function of x, got int")],
    "key": [
        (0, TypeError, "expected one random key, such as .*, got 0"),
        (jax.random.split(KEY), TypeError, r"expected one random key, .* of shape \(2,\)"),
    ],
    "executor": [(2, TypeError, "expected a concurrent.futures.Executor, got int")],
}
BAD_CALLS = [
    (name, argument, *case)
    for name in METHODS
    for argument, cases in WRONG.items()
    if argument not in {"gradient_descent": ("mu", "matrices")}.get(name, ())
    for case in cases
]


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(("name", "argument", "value", "error", "expected"), BAD_CALLS)
def test_every_bad_argument_is_named_with_what_was_expected_and_what_came(
    name, argument, value, error, expected
):
    options = {"problem": P, "rounds": 1, **METHODS[name], argument: value}
    with pytest.raises(error, match=f"^{argument}: {expected}"):
        getattr(optimizers, name)(**options)


@pytest.mark.usefixtures("without_type_checks")
def test_the_best_of_no_steps_is_an_error():
    with pytest.raises(ValueError, match=r"^step_sizes: expected one or more numbers, got none"):
        optimizers.best_step(optimizers.gradient_descent, P, [], rounds=1)
    with pytest.raises(TypeError, match=r"^step_sizes: expected a sequence, got 1.0"):
        optimizers.best_step(optimizers.gradient_descent, P, 1.0, rounds=1)


@pytest.mark.parametrize("name", ["preconditioned_descent", "newton"])
def test_matrices_that_are_rounded_at_random_need_a_key(name):
    with pytest.raises(ValueError, match=r"^key: expected a random key for QSGD.*got None"):
        run(name, P, matrices=QSGD(8))


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"distances": [[1.0, 1.0]]}, ValueError, "distances: expected an array of rank 1"),
        ({"distances": [1.0, np.nan]}, ValueError, "distances: expected finite entries"),
        ({"accuracy": 0.0}, ValueError, "accuracy: expected a finite number > 0, got 0"),
        ({"accuracy": "fine"}, TypeError, "accuracy: expected a real number, got 'fine'"),
        ({"rounds": 0}, ValueError, "rounds: expected an integer >= 1, got 0"),
        ({"rounds": 1.5}, TypeError, "rounds: expected an integer, got 1.5"),
    ],
)
def test_bad_arguments_of_the_bound_are_named(options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        optimizers.preconditioned_bound(**{"distances": [1.0, 0.5], "accuracy": 0.1} | options)
