"""Vectors as bytes: what arrives, how many bytes it takes, and what is noticed on the way."""

import math
import os

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ntk_utils.quantization import messages
from ntk_utils.quantization.messages import QSGD, Label, Lattice, MessageError, OutOfRange

LABEL = Label(sender=2, number=5)
SEEDS = range(5)


def vector(seed, d, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal(d)


def lattice_message(x, reference, epsilon):
    bits = messages.lattice_bits(x, [reference], epsilon=epsilon)
    return messages.encode_lattice(x, epsilon=epsilon, bits=bits, label=LABEL)


def every_kind(x):
    """One message of each kind with the same vector."""
    return {
        "exact": messages.encode_exact(x, label=LABEL),
        "lattice": lattice_message(x, 0 * x, 0.1),
        "qsgd": messages.encode_qsgd(x, bits=4, rng=np.random.default_rng(0), label=LABEL),
    }


KINDS = ["exact", "lattice", "qsgd"]
for_each_kind = pytest.mark.parametrize("kind", KINDS)
dimensions = st.one_of(st.integers(1, 40), st.sampled_from([100, 1000, 10_000]))
N_EXAMPLES = os.environ.get("HYPOTHESIS_EXAMPLES")
search = hypothesis.settings(
    max_examples=int(N_EXAMPLES or 100),
    derandomize=N_EXAMPLES is None,
    database=None,
    deadline=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)


# --- the lattice ----------------------------------------------------------------------------------


@search
@hypothesis.given(
    seed=st.integers(0, 1000),
    d=dimensions,
    scale=st.floats(-200, 200).map(lambda e: 10.0**e),
    fineness=st.floats(0, 8),
    distance=st.floats(-3, 3),
)
def test_a_lattice_message_arrives_with_at_most_its_error_at_any_scale_in_any_dimension(
    seed, d, scale, fineness, distance
):
    x, epsilon = vector(seed, d, scale), scale * 10.0**-fineness
    reference = x + vector(seed + 1, d, epsilon * 10.0**distance)
    message = lattice_message(x, reference, epsilon)
    decoded = messages.decode(message, label=LABEL, reference=reference)
    assert np.linalg.norm((decoded - x) / epsilon) <= 1
    assert np.array_equal(decoded, messages.lattice_point(x, epsilon=epsilon))


@pytest.mark.parametrize("d", [1, 7, 64, 10_000])
def test_the_error_bound_is_not_vacuous(d):
    # s √d / 2 lies in (ε/2, ε], and the mean square of an error is s²/12 for each coordinate
    errors = [
        np.linalg.norm(messages.lattice_point(x, epsilon=0.1) - x)
        for x in (vector(seed, d, 10.0) for seed in range(50))
    ]
    assert max(errors) > 0.1 * 0.5 / math.sqrt(3) * 0.9
    assert max(errors) <= 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_decoded_is_the_nearest_point_of_a_lattice_with_steps_of_a_power_of_two(seed):
    x = vector(seed, 9, 3.0)
    step = 2.0 ** math.floor(math.log2(2 * 0.1 / 3))
    point = messages.lattice_point(x, epsilon=0.1)
    assert np.array_equal(point, step * np.rint(x / step))


def test_an_error_that_is_a_lattice_step_itself_is_met_exactly():
    assert messages.lattice_point([0.26], epsilon=0.25).tolist() == [0.5]
    assert messages.lattice_point([0.26], epsilon=0.249).tolist() == [0.25]


@search
@hypothesis.given(seed=st.integers(0, 1000), d=st.integers(1, 50), distance=st.floats(-2, 4))
def test_the_bits_are_the_fewest_that_every_reference_decodes(seed, d, distance):
    x, references = vector(seed, d), [vector(seed + i, d, 10.0**distance) for i in (1, 2)]
    bits = messages.lattice_bits(x, references, epsilon=0.1)
    point = messages.lattice_point(x, epsilon=0.1)

    def received(b):
        message = messages.encode_lattice(x, epsilon=0.1, bits=b, label=LABEL)
        return [messages.decode(message, label=LABEL, reference=r) for r in references]

    assert all(np.array_equal(vector, point) for vector in received(bits))
    if bits > 1:
        with pytest.raises(OutOfRange):
            received(bits - 1)


def test_bits_depend_on_the_distance_of_the_reference_and_not_on_the_length_of_the_vector():
    x = vector(0, 30)
    near = messages.lattice_bits(x, [x + 0.1], epsilon=0.1)
    assert messages.lattice_bits(x + 1e6, [x + 1e6 + 0.1], epsilon=0.1) in (near, near + 1)
    assert messages.lattice_bits(x, [x + 1e6], epsilon=0.1) > near + 15


@pytest.mark.parametrize("drift", [[1000.0, 0, 0], [0, 0, -1000.0], [1e300, 0, 0]])
def test_a_reference_that_has_drifted_is_noticed_and_gives_no_wrong_vector(drift):
    x = vector(0, 3)
    message = lattice_message(x, x + 0.2, 0.1)
    with pytest.raises(OutOfRange, match=r"reference: expected one within .* node 2 .* message 5"):
        messages.decode(message, label=LABEL, reference=x + drift)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("first", [1, 3, 6])
def test_further_bits_make_of_a_message_that_was_too_short_the_whole_one(seed, first):
    x, reference = vector(seed, 40, 10.0), np.zeros(40)
    whole = lattice_message(x, reference, 0.1)
    bits = messages.lattice_bits(x, [reference], epsilon=0.1)
    short = messages.encode_lattice(x, epsilon=0.1, bits=first, label=LABEL)
    with pytest.raises(OutOfRange) as error:
        messages.decode(short, label=LABEL, reference=reference)
    further = messages.encode_lattice(x, epsilon=0.1, bits=bits, label=LABEL, after=first)
    assert len(further) == 13 + math.ceil((bits - first) * 40 / 8)
    options = {"label": LABEL, "reference": reference}
    assert np.array_equal(
        messages.decode(further, **options, residues=error.value.residues),
        messages.decode(whole, **options),
    )
    with pytest.raises(MessageError, match="residues modulo"):
        messages.decode(further, **options)
    with pytest.raises(MessageError, match="residues modulo"):
        messages.decode(whole, **options, residues=error.value.residues)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("moved", [slice(4, 5), slice(None)])
@pytest.mark.parametrize("periods", [-1, 1, 1000])
def test_a_reference_that_drifted_by_whole_periods_gives_no_wrong_vector(seed, moved, periods):
    x, bits = vector(seed, 12), 5
    step = 2.0 ** math.floor(math.log2(2 * 0.1 / math.sqrt(12)))
    message = messages.encode_lattice(x, epsilon=0.1, bits=bits, label=LABEL)
    messages.decode(message, label=LABEL, reference=x)
    reference = x.copy()
    reference[moved] += periods * 2**bits * step
    with pytest.raises(OutOfRange):
        messages.decode(message, label=LABEL, reference=reference)


@search
@hypothesis.given(seed=st.integers(0, 1000), d=st.integers(1, 50), distance=st.floats(-2, 8))
def test_whatever_the_reference_the_lattice_point_is_decoded_or_nothing(seed, d, distance):
    x = vector(seed, d)
    message = messages.encode_lattice(x, epsilon=0.1, bits=6, label=LABEL)
    reference = x + vector(seed + 1, d, 10.0**distance)
    needed = messages.lattice_bits(x, [reference], epsilon=0.1)
    try:
        decoded = messages.decode(message, label=LABEL, reference=reference)
    except OutOfRange:
        assert needed > 6
    else:
        assert needed <= 6
        assert np.array_equal(decoded, messages.lattice_point(x, epsilon=0.1))


@pytest.mark.parametrize("seed", SEEDS)
def test_further_bits_in_several_messages_cost_only_themselves(seed):
    x, reference, first = vector(seed, 40, 1000.0), np.zeros(40), 3
    options = {"label": LABEL, "reference": reference}
    most = messages.lattice_bits(x, [reference], epsilon=0.1)
    residues, payload = None, 0
    for after, bits in [(0, first), (first, 7), (7, 8), (8, most)]:
        part = messages.encode_lattice(x, epsilon=0.1, bits=bits, label=LABEL, after=after)
        payload += len(part) - 13
        if bits < most:
            with pytest.raises(OutOfRange) as error:
                messages.decode(part, **options, residues=residues)
            residues = error.value.residues
            assert (residues >= 0).all()
            assert (residues < 2**bits).all()
    decoded = messages.decode(part, **options, residues=residues)
    assert np.array_equal(decoded, messages.lattice_point(x, epsilon=0.1))
    assert payload == 40 * most / 8


def test_residues_of_another_vector_give_no_wrong_vector():
    x, reference = vector(0, 40, 10.0), np.zeros(40)
    short = messages.encode_lattice(-x, epsilon=0.1, bits=3, label=LABEL)
    with pytest.raises(OutOfRange) as error:
        messages.decode(short, label=LABEL, reference=reference)
    further = messages.encode_lattice(x, epsilon=0.1, bits=20, label=LABEL, after=3)
    with pytest.raises(OutOfRange):
        messages.decode(further, label=LABEL, reference=reference, residues=error.value.residues)


def test_errors_that_doubles_cannot_express_are_refused():
    with pytest.raises(ValueError, match="epsilon: expected an error that doubles can express"):
        messages.lattice_point([1.0, 2.0], epsilon=1e-17)


def test_the_smallest_error_of_all_is_met_or_refused():
    x = np.full(100, 0.3)
    try:
        point = messages.lattice_point(x, epsilon=5e-324)
    except ValueError:
        return
    assert np.array_equal(point, x)


# --- QSGD -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("d", "bits"), [(1, 2), (5, 2), (64, 4), (300, 3)])
def test_qsgd_is_unbiased_with_a_mean_square_error_below_its_bound_and_not_far_below(seed, d, bits):
    x, rng, k = vector(seed, d), np.random.default_rng(seed), 2 ** (bits - 1) - 1
    draws = np.array(
        [
            messages.decode(
                messages.encode_qsgd(x, bits=bits, rng=rng, label=LABEL), label=LABEL, reference=x
            )
            for _ in range(300)
        ]
    )
    # what is rounded at random to one of two numbers has at most half of their distance as its sd
    largest_sd = np.linalg.norm(x) / (2 * k)
    assert (abs(draws.mean(axis=0) - x) <= 5 * largest_sd / math.sqrt(len(draws))).all()
    assert abs((draws - x).mean()) <= 5 * largest_sd / math.sqrt(draws.size)
    squares = ((draws - x) ** 2).sum(axis=1)
    bound = min(d / k**2, math.sqrt(d) / k) * (x @ x)
    mean = squares.mean()
    assert mean <= bound
    assert d == 1 or mean > bound / 10


def test_qsgd_sends_levels_of_the_norm():
    x = vector(0, 20)
    message = messages.encode_qsgd(x, bits=3, rng=np.random.default_rng(0), label=LABEL)
    levels = 3 * messages.decode(message, label=LABEL, reference=x) / np.linalg.norm(x)
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-12)
    assert (abs(levels - 3 * x / np.linalg.norm(x)) < 1).all()


def test_qsgd_sends_zero_and_single_entries_without_error():
    for x in (np.zeros(3), np.array([0.0, -2.5, 0.0])):
        message = messages.encode_qsgd(x, bits=2, rng=np.random.default_rng(0), label=LABEL)
        assert np.array_equal(messages.decode(message, label=LABEL, reference=x), x)


def test_qsgd_rounds_by_the_generator_alone():
    x = vector(0, 50)
    a, b, c = (
        messages.encode_qsgd(x, bits=4, rng=np.random.default_rng(seed), label=LABEL)
        for seed in (1, 1, 2)
    )
    assert a == b != c


@pytest.mark.parametrize("bits", [50, 52, 54])
def test_qsgd_never_sends_a_vector_that_is_farther_than_one_level(bits):
    for seed in range(500):
        rng = np.random.default_rng(seed)
        x = np.abs(rng.standard_normal(1))
        message = messages.encode_qsgd(x, bits=bits, rng=rng, label=LABEL)
        decoded = messages.decode(message, label=LABEL, reference=x)
        np.testing.assert_allclose(decoded, x, rtol=2.0 ** (3 - bits))


@pytest.mark.parametrize("scale", [1e-200, 1e200])
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_qsgd_sends_vectors_of_any_scale(scale):
    x = vector(0, 20)
    plain, scaled = (
        messages.decode(
            messages.encode_qsgd(v, bits=8, rng=np.random.default_rng(0), label=LABEL),
            label=LABEL,
            reference=v,
        )
        for v in (x, scale * x)
    )
    np.testing.assert_allclose(scaled / scale, plain, rtol=1e-12)


# --- bytes ----------------------------------------------------------------------------------------


def test_exact_vectors_arrive_exactly():
    x = np.array([1e-300, -0.1, math.pi, 1e300])
    message = messages.encode_exact(x, label=LABEL)
    assert np.array_equal(messages.decode(message, label=LABEL, reference=x), x)


@pytest.mark.parametrize("d", [1, 7, 8, 1000])
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_messages_are_as_long_as_they_say(d, bits):
    x, payload = vector(0, d), math.ceil(bits * d / 8)
    assert len(messages.encode_exact(x, label=LABEL)) == 5 + 8 * d
    lattice = messages.encode_lattice(x, epsilon=0.1, bits=bits, label=LABEL)
    assert len(lattice) == 13 + payload
    rng = np.random.default_rng(0)
    assert len(messages.encode_qsgd(x, bits=bits, rng=rng, label=LABEL)) == 14 + payload


@for_each_kind
def test_a_message_that_was_cut_anywhere_is_refused(kind):
    x = vector(0, 6)
    message = every_kind(x)[kind]
    for length in range(len(message)):
        with pytest.raises(MessageError, match=f"got {length} bytes"):
            messages.decode(message[:length], label=LABEL, reference=x)
    with pytest.raises(MessageError, match="another checksum"):
        messages.decode(message + b"0", label=LABEL, reference=x)


@for_each_kind
def test_a_message_with_one_bit_changed_is_refused(kind):
    x = vector(0, 6)
    message = every_kind(x)[kind]
    for i in range(8 * len(message)):
        changed = bytearray(message)
        changed[i // 8] ^= 1 << i % 8
        with pytest.raises(MessageError, match="truncated, altered or out of order"):
            messages.decode(bytes(changed), label=LABEL, reference=x)


@for_each_kind
@pytest.mark.parametrize("other", [Label(3, 5), Label(2, 4), Label(5, 2)])
def test_the_message_of_another_node_or_of_another_place_in_the_order_is_refused(kind, other):
    x = vector(0, 6)
    expected = f"expected message {other.number} of node {other.sender}"
    with pytest.raises(MessageError, match=expected):
        messages.decode(every_kind(x)[kind], label=other, reference=x)


@for_each_kind
def test_a_vector_of_another_length_is_refused(kind):
    x = vector(0, 60)
    with pytest.raises(MessageError, match="expected"):
        messages.decode(every_kind(x)[kind], label=LABEL, reference=x[:30])


# --- bad input ------------------------------------------------------------------------------------

X, RNG = np.array([1.0, 2.0]), np.random.default_rng(0)
PUBLIC = {
    "encode_exact": {"x": X, "label": LABEL},
    "encode_lattice": {"x": X, "epsilon": 1.0, "bits": 3, "label": LABEL, "after": 0},
    "encode_qsgd": {"x": X, "bits": 3, "rng": RNG, "label": LABEL},
    "lattice_bits": {"x": X, "references": [X], "epsilon": 1.0},
    "lattice_point": {"x": X, "epsilon": 1.0},
    "decode": {
        "message": messages.encode_exact(X, label=LABEL),
        "label": LABEL,
        "reference": X,
        "residues": None,
    },
}


NOT_VECTORS = [
    ([[1.0]], ValueError, r"expected an array of rank 1, got shape \(1, 1\)"),
    ([], ValueError, r"expected at least one row .*got shape \(0,\)"),
    ([np.nan, 1.0], ValueError, "expected finite entries, got 1 nan or inf"),
    (["a", "b"], TypeError, "expected real numbers, got dtype <U1"),
    ("text", TypeError, "expected a NumPy or JAX array, got str"),
]
WRONG = {
    "x": NOT_VECTORS,
    "reference": NOT_VECTORS,
    "epsilon": [
        (0.0, ValueError, "expected a finite number > 0, got 0"),
        (-1.0, ValueError, "expected a finite number > 0, got -1"),
        (math.inf, ValueError, "expected a finite number > 0, got inf"),
        ("1", TypeError, "expected a real number, got '1'"),
    ],
    "bits": [
        (0, ValueError, "expected an integer >= 1, got 0"),
        (55, ValueError, "expected from [12] to 54 bits, got 55"),
        (3.0, TypeError, "expected an integer, got 3.0"),
    ],
    "after": [
        (-1, ValueError, "expected an integer >= 0, got -1"),
        (3, ValueError, "expected fewer bits than bits = 3, got 3"),
        (1.0, TypeError, "expected an integer, got 1.0"),
    ],
    "label": [
        (3, TypeError, r"expected Label\(sender, number\), got 3"),
        ((1, 2, 3), TypeError, r"expected Label\(sender, number\), got \(1, 2, 3\)"),
    ],
    "rng": [(0, TypeError, "expected Generator, got int")],
    "references": [
        ([], ValueError, r"expected at least one, of shape \(2,\), got \[\]"),
        ([X, X[:1]], ValueError, r"expected .* of shape \(2,\), got \[\(2,\), \(1,\)\]"),
        (3, TypeError, "expected a sequence, got 3"),
    ],
    "message": [
        ("text", TypeError, "expected bytes, got str"),
        (None, TypeError, "expected bytes, got NoneType"),
    ],
}
BAD_CALLS = [
    (name, argument, *case)
    for name, arguments in PUBLIC.items()
    for argument in arguments
    for case in WRONG.get(argument, [])
]


@pytest.mark.parametrize("name", PUBLIC)
def test_the_arguments_that_are_made_bad_below_are_good(name):
    getattr(messages, name)(**PUBLIC[name])


@pytest.mark.parametrize(("name", "argument", "value", "error", "expected"), BAD_CALLS)
def test_every_bad_argument_is_named_with_what_was_expected_and_what_came(
    name, argument, value, error, expected
):
    with pytest.raises(error, match=f"^{argument}: {expected}"):
        getattr(messages, name)(**PUBLIC[name] | {argument: value})


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    "residues", ["text", 3, np.array([1.0] * 40), np.array([1]), np.array([1] * 5)]
)
def test_residues_that_are_not_those_of_the_vector_are_named(residues):
    further = messages.encode_lattice(vector(0, 40), epsilon=0.1, bits=20, label=LABEL, after=3)
    with pytest.raises((ValueError, TypeError), match=r"^residues: expected"):
        messages.decode(further, label=LABEL, reference=np.zeros(40), residues=residues)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Lattice(accuracy=0.0), ValueError, "accuracy: expected a finite number > 0"),
        (lambda: Lattice(accuracy="fine"), TypeError, "accuracy: expected a real number"),
        (lambda: Lattice(first_bits=0), ValueError, "first_bits: expected an integer >= 1, got 0"),
        (lambda: Lattice(first_bits=55), ValueError, "first_bits: expected from 1 to 54 bits"),
        (lambda: Lattice(first_bits=8.0), TypeError, "first_bits: expected an integer, got 8.0"),
        (lambda: Lattice(memory=1), TypeError, "memory: expected bool, got int"),
        (lambda: QSGD(bits=1), ValueError, "bits: expected from 2 to 54 bits, got 1"),
        (lambda: QSGD(bits=55), ValueError, "bits: expected from 2 to 54 bits, got 55"),
        (lambda: QSGD(bits="8"), TypeError, "bits: expected an integer, got '8'"),
        (
            lambda: messages.encode_qsgd(X, bits=1, rng=RNG, label=LABEL),
            ValueError,
            "bits: expected from 2 to 54 bits, got 1",
        ),
        (
            lambda: messages.encode_exact(X, label=(-1, 1)),
            ValueError,
            "label.sender: expected an integer >= 0, got -1",
        ),
        (
            lambda: messages.encode_exact(X, label=(1, 0.5)),
            TypeError,
            "label.number: expected an integer, got 0.5",
        ),
        (
            lambda: messages.lattice_bits(X, [X, [np.inf, 1.0]], epsilon=1.0),
            ValueError,
            r"references\[1\]: expected finite entries, got 1 nan or inf",
        ),
    ],
)
def test_bad_input_is_named_with_what_was_expected_and_what_came(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
