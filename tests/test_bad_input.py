"""What every public function refuses, and that its error names the argument, what was expected and
what came."""

import dataclasses
import io
import re

import jax
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import ntk_utils
from ntk_utils import Network

NAN = float("nan")
KEY = jax.random.key(0)
NETWORK = Network((3, 8, 1))
W = (np.ones((3, 2)), np.ones((2, 1)))
W_3 = (np.ones((3, 2)), np.ones((2, 2)), np.ones((2, 1)))
W_4 = (*W_3[:2], *W_3[1:])
X = np.arange(12.0).reshape(4, 3)
Y = np.arange(4.0)
X_APART = np.eye(3)
X_ZERO = np.vstack([X_APART, np.zeros(3)])
X_NAN, X_INF = X.copy(), X.copy()
X_NAN[1, 2], X_INF[0, 0] = NAN, np.inf
K = np.eye(3)
TABLE = pd.DataFrame(
    {"seed": [0, 0, 1, 1], "n": [1, 2, 1, 2], "y": [1.0, 2.0, 1.0, 4.0], "zero": [0.0, 1, 2, 3]}
)
AX = Figure().subplots()


def measure(key, **_):
    return jax.random.uniform(key)


@dataclasses.dataclass
class Bad:
    """A call that must raise `error`, "argument: expected …, got …", the last two as given."""

    error: type[Exception]
    argument: str
    expected: str
    got: str
    args: tuple
    kwargs: dict


def bad(error, argument, expected, got, *args, **kwargs):
    return Bad(error, argument, expected, got, args, kwargs)


def bad_samples(*before, at_least_two=False, **after):
    """What every function of samples x refuses, x after the given arguments."""
    calls = [
        (ValueError, "rank 2", "(3,)", X[0]),
        (ValueError, "rank 2", "()", 1.0),
        (ValueError, "rank 2", "(1, 4, 3)", X[None]),
        (ValueError, "at least one row", "(0, 3)", X[:0]),
        (ValueError, "at least one row and one column", "(4, 0)", X[:, :0]),
        (ValueError, "finite", "1 nan or inf", X_NAN),
        (ValueError, "finite", "1 nan or inf", X_INF),
        (ValueError, "rectangular", "different lengths", [[1.0, 2.0, 3.0], [1.0]]),
        (TypeError, "real numbers", "complex128", X * 1j),
        (TypeError, "real numbers", "<U1", np.array([["a", "b", "c"]])),
        (TypeError, "array", "str", "x"),
        (TypeError, "array", "NoneType", None),
        (TypeError, "real numbers", "object", pd.DataFrame({"a": ["b", 1.0], "c": [2.0, 3.0]})),
        (TypeError, "real numbers", "object", [[10**400, 1.0], [2.0, 3.0]]),
        (ValueError, "finite", "1 nan or inf", pd.DataFrame({"a": [1, None]}, dtype="Int64")),
        (ValueError, "masked", "1", np.ma.masked_greater(X, 10)),
    ]
    if at_least_two:
        calls.append((ValueError, "two samples", "(1, 3)", X[:1]))
    return [
        bad(error, "x", expected, got, *before, x, **after) for error, expected, got, x in calls
    ]


def bad_weights(*after):
    """What every function of weights refuses, the weights before the given arguments."""
    w_1, w_2 = W
    calls = [
        (TypeError, "params", "non-empty tuple", "tuple", ()),
        (TypeError, "params", "tuple of weight matrices", "ndarray", w_1),
        (TypeError, "params", "tuple of weight matrices", "dict", {"w": w_1}),
        (TypeError, "params[1]", "array", "str", (w_1, "w")),
        (TypeError, "params", "without biases", "(W, b) in params[0]", ((w_1, w_1[0]), w_2)),
        (TypeError, "params", "without biases", "(W, b) in params[1]", (w_1, [w_2, w_2[0]])),
        (ValueError, "params[1]", "rank 2", "(2,)", (w_1, w_2[:, 0])),
        (ValueError, "params[0]", "at least one", "(0, 2)", (w_1[:0], w_2)),
        (ValueError, "params[0]", "finite", "6 nan or inf", (w_1 * NAN, w_2)),
        (ValueError, "params", "params[1] to have as many rows", "(3, 2) and (3, 4)", (w_1, X.T)),
        (ValueError, "params", "1 column", "(3, 2)", (w_1,)),
    ]
    return [
        bad(error, argument, expected, got, params, *after)
        for error, argument, expected, got, params in calls
    ]


def bad_weights_or_samples():
    wrong_width = bad(ValueError, "x", "3 columns", "(4, 2)", W, X[:, :2])
    return [*bad_weights(X), *bad_samples(W), wrong_width]


def bad_labels(*before):
    """What every function of labels y refuses, y after the given arguments."""
    y_nan = np.where(np.arange(4) == 2, NAN, Y)
    calls = [
        (ValueError, "rank 1", "(4, 1)", Y[:, None]),
        (ValueError, "4 labels", "3", Y[:3]),
        (ValueError, "finite", "1 nan or inf", y_nan),
        (TypeError, "real numbers", "<U1", np.array(list("abcd"))),
        (TypeError, "array", "NoneType", None),
    ]
    return [bad(error, "y", expected, got, *before, y) for error, expected, got, y in calls]


def bad_training():
    """What the optimisers refuse."""
    return [
        *bad_weights(X, Y),
        *bad_samples(W, y=Y),
        *bad_labels(W, X),
        bad(ValueError, "steps", "integer >= 1", "0", W, X, Y, steps=0),
        bad(TypeError, "steps", "integer", "1.5", W, X, Y, steps=1.5),
        bad(ValueError, "tolerance", "> 0", "0.0", W, X, Y, tolerance=0.0),
        bad(TypeError, "tolerance", "real number", "None", W, X, Y, tolerance=None),
    ]


def bad_kernels():
    asymmetric = np.array([[1.0, 2.0], [2.5, 1.0]])
    return [
        *bad_matrices("k"),
        bad(ValueError, "k", "square", "(4, 3)", X),
        bad(ValueError, "k", "symmetric", "0.5", asymmetric),
    ]


def bad_matrices(name):
    calls = [
        (ValueError, "rank 2", "(3,)", K[0]),
        (ValueError, "at least one", "(0, 0)", K[:0, :0]),
        (ValueError, "finite", "9 nan or inf", K * NAN),
        (TypeError, "float64", "float32", K.astype(np.float32)),
        (TypeError, "float64", "float16", K.astype(np.float16)),
        (TypeError, "float64", "float32", jax.numpy.eye(3, dtype="float32")),
        (TypeError, "float64", "float32", pd.DataFrame(K.astype(np.float32))),
        (TypeError, "real numbers", "complex128", K * 1j),
        (TypeError, "array", "str", "k"),
        (TypeError, "array", "NoneType", None),
    ]
    return [bad(error, name, expected, got, k) for error, expected, got, k in calls]


def bad_layers(*args):
    """What every function of a hidden layer k refuses, k after the given arguments; L = 2."""
    return [
        bad(ValueError, "k", "integer >= 1", "0", *args, 0),
        bad(ValueError, "k", "hidden layer", "2", *args, 2),
        bad(TypeError, "k", "integer", "1.0", *args, 1.0),
        bad(TypeError, "k", "integer", "True", *args, True),
    ]


def bad_networks_or_features():
    return [
        *bad_relu_networks(X, 1),
        bad(ValueError, "f", "3 columns, the width of layer 0", "(4, 2)", NETWORK, X[:, :2], 1),
        bad(ValueError, "f", "finite", "1 nan or inf", NETWORK, X_NAN, 1),
        *bad_layers(NETWORK, X),
    ]


def bad_weights_samples_or_layers():
    wrong_width = bad(ValueError, "x", "3 columns", "(4, 2)", W, X[:, :2], 1)
    samples = [dataclasses.replace(call, args=(*call.args, 1)) for call in bad_samples(W)]
    return [*bad_weights(X, 1), *samples, wrong_width, *bad_layers(W, X)]


def bad_sizes():
    """What the samplers refuse of (key, n, d)."""
    return [
        *bad_keys(lambda key: (key, 4, 3)),
        bad(ValueError, "n", "integer >= 1", "0", KEY, 0, 3),
        bad(ValueError, "d", "integer >= 1", "-2", KEY, 4, -2),
        bad(TypeError, "n", "integer", "4.0", KEY, 4.0, 3),
        bad(TypeError, "d", "integer", "True", KEY, 4, True),
        bad(TypeError, "d", "integer", "'3'", KEY, 4, "3"),
    ]


def bad_keys(args):
    return [
        bad(TypeError, "key", "one random key", "0", *args(0)),
        bad(TypeError, "key", "one random key", "None", *args(None)),
        bad(TypeError, "key", "one random key", "of shape (2,)", *args(jax.random.split(KEY))),
        bad(TypeError, "key", "one random key", "float64 of shape ()", *args(jax.numpy.ones(()))),
    ]


def bad_networks(*after):
    return [
        bad(TypeError, "network", "Network", "tuple", (3, 8, 1), *after),
        bad(TypeError, "network", "Network", "NoneType", None, *after),
    ]


def bad_relu_networks(*after):
    other = Network((3, 8, 1), activation=jax.nn.sigmoid)
    return [*bad_networks(*after), bad(ValueError, "network", "ReLU", "sigmoid", other, *after)]


@jax.custom_vjp
def backward_only(u):
    return u


backward_only.defvjp(lambda u: (u, None), lambda _, v: (v,))


@dataclasses.dataclass
class Unhashable:
    """A function with fields that may change."""

    scale: float = 1.0

    def __call__(self, u):
        return self.scale * u


def bad_activations(*before):
    """What every function of an activation refuses, after the given arguments."""
    calls = [
        (TypeError, "elementwise function", "'tanh'", "tanh"),
        (TypeError, "elementwise function", "None", None),
        (TypeError, "elementwise function", "TypeError: ", lambda: 0),
        (ValueError, "elementwise function", "returns float64[2]", lambda u: u.sum(axis=1)),
        (ValueError, "elementwise function", "bool", lambda u: u > 0),
        (ValueError, "elementwise function", "mixes entries", jax.nn.softmax),
        (TypeError, "elementwise function", "custom_vjp", backward_only),
        (TypeError, "elementwise function", "unhashable", Unhashable()),
        (ValueError, "elementwise function", "int64[]", lambda _: 0),
    ]
    return [
        bad(error, "activation", expected, got, *before, activation=activation)
        for error, expected, got, activation in calls
    ]


def bad_networks_or_samples():
    wrong_width = bad(ValueError, "x", "3 columns", "(4, 2)", NETWORK, X[:, :2])
    return [*bad_relu_networks(X), *bad_samples(NETWORK), wrong_width]


def bad_samples_or_depths():
    return [
        *bad_samples(depth=2),
        bad(ValueError, "depth", "integer >= 1", "0", X, depth=0),
        bad(ValueError, "depth", "integer >= 1", "-1", X, depth=-1),
        bad(TypeError, "depth", "integer", "2.0", X, depth=2.0),
    ]


def bad_verdicts():
    good = {"kind": "rate", "predicted": 1, "measured": 1, "source": "s"}
    good |= {"holds": True, "control": False}
    identity = {"kind": "identity", "control": None}
    not_one_bool = [
        ("1", 1),
        ("None", None),
        ("array([ True])", np.array([True])),
        ("'yes'", "yes"),
    ]
    calls = [
        (TypeError, "claim", "text", "3", {"claim": 3}),
        (ValueError, "claim", "some words", "none", {"claim": ""}),
        (TypeError, "source", "text", "4.1", {"source": 4.1}),
        (ValueError, "source", "some words", "none", {"source": ""}),
        (ValueError, "kind", "identity, certificate, rate", "'theorem'", {"kind": "theorem"}),
        (ValueError, "kind", "identity, certificate, rate", "None", {"kind": None}),
        *((TypeError, "holds", "True or False", got, {"holds": v}) for got, v in not_one_bool),
        *(
            (TypeError, "control", "True or False", got, {"control": v})
            for got, v in not_one_bool
            if v is not None
        ),
        (ValueError, "control", "a broken hypothesis for a rate", "none", {"control": None}),
        (ValueError, "control", "none for an identity", "False", {**identity, "control": False}),
        (TypeError, "not_reached", "text", "True", {"not_reached": True}),
        (ValueError, "not_reached", "some words", "none", {"not_reached": ""}),
        (ValueError, "not_reached", "none for a", "'N = 5'", {**identity, "not_reached": "N = 5"}),
        (TypeError, "predicted", "text or numbers", "None", {"predicted": None}),
        (TypeError, "measured", "text or numbers", "object", {"measured": object()}),
        (TypeError, "measured", "text or numbers", "['a', 1]", {"measured": ["a", 1]}),
        (ValueError, "predicted", "text or numbers", "none", {"predicted": ""}),
        (ValueError, "measured", "text or numbers", "none", {"measured": []}),
    ]
    return [
        bad(error, argument, expected, got, ntk_utils.Claims(), **({"claim": "c"} | good | changes))
        for error, argument, expected, got, changes in calls
    ]


BAD_CALLS = {
    "Network": [
        bad(TypeError, "widths", "sequence", "'341'", "341"),
        bad(TypeError, "widths", "sequence", "3", 3),
        bad(ValueError, "widths", "scalar output last", "()", ()),
        bad(ValueError, "widths", "scalar output last", "(1,)", (1,)),
        bad(ValueError, "widths", "scalar output last", "(3, 4, 2)", (3, 4, 2)),
        bad(ValueError, "widths[1]", "integer >= 1", "0", (3, 0, 1)),
        bad(ValueError, "widths[0]", "integer >= 1", "-3", (-3, 4, 1)),
        bad(TypeError, "widths[1]", "integer", "4.5", (3, 4.5, 1)),
        bad(TypeError, "widths[2]", "integer", "True", (3, 4, True)),
        bad(ValueError, "init", '"lecun", "he" or 2 numbers', "'xavier'", (3, 4, 1), "xavier"),
        bad(TypeError, "init", '"lecun", "he" or 2 numbers', "0.5", (3, 4, 1), 0.5),
        bad(ValueError, "init", "2 numbers", "got 1", (3, 4, 1), (0.5,)),
        bad(ValueError, "init", "2 numbers", "got 3", (3, 4, 1), (0.5, 0.5, 0.5)),
        bad(ValueError, "init[1]", "> 0", "0.0", (3, 4, 1), (0.5, 0.0)),
        bad(ValueError, "init[0]", "> 0", "-1.0", (3, 4, 1), (-1.0, 0.5)),
        bad(ValueError, "init[0]", "finite", "nan", (3, 4, 1), (NAN, 0.5)),
        bad(ValueError, "init[1]", "finite", "inf", (3, 4, 1), (0.5, np.inf)),
        bad(TypeError, "init[0]", "real number", "'he'", (3, 4, 1), ("he", "he")),
        *bad_activations((3, 4, 1)),
    ],
    "SmoothedLeakyReLU": [
        bad(ValueError, "gamma", "between 0 and 1", "1.0", 1.0),
        bad(ValueError, "gamma", "> 0", "0.0", 0.0),
        bad(TypeError, "gamma", "real number", "'a'", "a"),
        bad(ValueError, "beta", "> 0", "-1.0", 0.5, -1.0),
        bad(ValueError, "beta", "finite", "inf", 0.5, np.inf),
    ],
    "init_params": [
        *bad_networks(KEY),
        *bad_keys(lambda key: (NETWORK, key)),
    ],
    "apply": [*bad_weights_or_samples(), *bad_activations(W, X)],
    "feature_matrices": [*bad_weights_or_samples(), *bad_activations(W, X)],
    "backward_matrices": [*bad_weights_or_samples(), *bad_activations(W, X)],
    "as_stax": bad_networks(),
    "empirical_ntk": [*bad_weights_or_samples(), *bad_activations(W, X)],
    "layer_ntks": [*bad_weights_or_samples(), *bad_activations(W, X)],
    "ntk_operator": bad_weights_or_samples(),
    "ntk_diagonal": bad_weights_or_samples(),
    "ntk_solve": [
        *bad_weights(X, Y),
        *bad_samples(W, y=Y),
        *bad_labels(W, X),
        bad(ValueError, "x", "3 columns", "(4, 2)", W, X[:, :2], Y),
        bad(ValueError, "rank", "integer >= 1", "0", W, X, Y, rank=0),
        bad(ValueError, "tolerance", "> 0", "0.0", W, X, Y, tolerance=0.0),
        bad(TypeError, "max_steps", "integer", "1.5", W, X, Y, max_steps=1.5),
    ],
    "largest_eigenvalue": [
        bad(TypeError, "operator", "AbstractLinearOperator", "ndarray", K),
        bad(ValueError, "operator", "at least 2 × 2", "1 × 1", ntk_utils.ntk_operator(W, X[:1])),
    ],
    "trace_of_square": [
        bad(TypeError, "operator", "AbstractLinearOperator", "ndarray", K, KEY),
        bad(TypeError, "key", "random key", "0", ntk_utils.ntk_operator(W, X), 0),
        bad(
            ValueError,
            "n_probes",
            "integer >= 2",
            "1",
            ntk_utils.ntk_operator(W, X),
            KEY,
            n_probes=1,
        ),
    ],
    "limiting_ntk": bad_samples_or_depths(),
    "limiting_layer_ntks": bad_samples_or_depths(),
    "wide_layer_ntks": bad_networks_or_samples(),
    "empirical_ntk_fn": [
        bad(TypeError, "apply_fn", "function", "tuple", W),
        bad(
            ValueError,
            "implementation",
            "JACOBIAN_CONTRACTION",
            "'FASTEST'",
            measure,
            implementation="FASTEST",
        ),
    ],
    "smallest_eigenvalue": bad_kernels(),
    "spectrum": bad_kernels(),
    "conditioning": bad_kernels(),
    "rounding_error": bad_kernels(),
    "lower_edge": [
        bad(ValueError, "population", "rank 1", "(3, 3)", K, 5),
        bad(ValueError, "population", "positive numbers", "0.0", [1.0, 0.0], 5),
        bad(ValueError, "population", "finite", "1 nan or inf", [1.0, NAN], 5),
        bad(TypeError, "population", "array", "str", "t", 5),
        bad(ValueError, "n", "integer >= 1", "0", [1.0, 2.0], 0),
        bad(TypeError, "n", "integer", "5.0", [1.0, 2.0], 5.0),
    ],
    "smallest_singular_value": bad_matrices("f"),
    "hermite_coefficient": [
        bad(ValueError, "r", "integer >= 0", "-1", -1),
        bad(TypeError, "r", "integer", "2.0", 2.0),
        bad(TypeError, "r", "integer", "True", True),
        bad(TypeError, "r", "integer", "'2'", "2"),
    ],
    "sandwich": [*bad_weights_or_samples(), *bad_activations(W, X)],
    "verified_bounds": bad_weights_or_samples(),
    "verified_lower_bound": bad_weights_or_samples(),
    "verified_upper_bound": bad_weights_or_samples(),
    "layer_shares": [*bad_weights_or_samples(), *bad_activations(W, X)],
    "limiting_layer_shares": bad_samples_or_depths(),
    "kernel_diagonal_deviation": bad_relu_networks(),
    "two_layer_gap_coefficients": [
        *bad_samples(at_least_two=True, key=KEY),
        *bad_keys(lambda key: (X, key)),
        bad(ValueError, "x", "simple", "1.68 and 1.68", X_APART, KEY),
        bad(ValueError, "x", "above rounding", "0 and", X_ZERO, KEY),
        bad(ValueError, "n_neurons", "integer >= 1", "0", X, KEY, n_neurons=0),
        bad(TypeError, "n_neurons", "integer", "5.0", X, KEY, n_neurons=5.0),
    ],
    "schur_terms": [*bad_weights_or_samples(), *bad_activations(W, X)],
    "schur_lower_bound": [*bad_weights_or_samples(), *bad_activations(W, X)],
    "diagonal_upper_bound": bad_kernels(),
    "mean_dead_samples": [
        *bad_relu_networks(10),
        bad(ValueError, "n_samples", "integer >= 1", "0", NETWORK, 0),
        bad(TypeError, "n_samples", "integer", "2.5", NETWORK, 2.5),
    ],
    "mean_kernel_diagonal": bad_networks_or_samples(),
    "mean_layer_diagonals": bad_networks_or_samples(),
    "nguyen21_lambda_min_upper": bad_relu_networks(),
    "nguyen21_lambda_min_lower": [
        *bad_networks_or_samples(),
        bad(ValueError, "r", "even", "3", NETWORK, X, r=3),
        bad(ValueError, "r", "integer >= 2", "0", NETWORK, X, r=0),
        bad(TypeError, "r", "integer", "2.0", NETWORK, X, r=2.0),
    ],
    "limiting_power_series": [
        bad(ValueError, "depth", "integer >= 1", "0", 0, 10),
        bad(TypeError, "depth", "integer", "2.0", 2.0, 10),
        bad(ValueError, "n_terms", "integer >= 1", "0", 3, 0),
        bad(TypeError, "n_terms", "integer", "True", 3, True),
    ],
    "limiting_lower_bound": [
        *bad_samples(depth=2),
        bad(ValueError, "depth", "integer >= 1", "0", X, depth=0),
        bad(TypeError, "depth", "integer", "2.0", X, depth=2.0),
        bad(ValueError, "n_terms", "integer >= 1", "-5", X, depth=2, n_terms=-5),
        bad(ValueError, "exact_orders", "integer >= 0", "-1", X, depth=2, exact_orders=-1),
        bad(TypeError, "exact_orders", "integer", "(1, 2)", X, depth=2, exact_orders=(1, 2)),
    ],
    "limiting_rank_upper_bound": [
        *bad_samples(depth=2),
        bad(ValueError, "depth", "integer >= 1", "0", X, depth=0),
        bad(TypeError, "depth", "integer", "2.0", X, depth=2.0),
    ],
    "nguyen21_limiting_lower": [
        *bad_samples(r=2),
        bad(ValueError, "r", "even", "3", X, r=3),
        bad(ValueError, "r", "integer >= 2", "0", X, r=0),
        bad(TypeError, "r", "integer", "2.0", X, r=2.0),
    ],
    "nguyen21_feature_sigma_min_squared": [*bad_relu_networks(1), *bad_layers(NETWORK)],
    "nguyen21_lipschitz_squared_upper": [*bad_relu_networks(1), *bad_layers(NETWORK)],
    "mean_feature_norms_squared": [
        *bad_relu_networks(X, 1),
        bad(ValueError, "x", "3 columns", "(4, 2)", NETWORK, X[:, :2], 1),
        bad(ValueError, "x", "finite", "1 nan or inf", NETWORK, X_NAN, 1),
        *bad_layers(NETWORK, X),
    ],
    "mean_feature_gram": bad_networks_or_features(),
    "mean_feature_gram_lower_bound": bad_networks_or_features(),
    "nguyen21_mean_feature_gram_lower": [
        *bad_networks_or_features(),
        bad(ValueError, "r", "integer >= 1", "0", NETWORK, X, 1, r=0),
        bad(TypeError, "r", "integer", "2.0", NETWORK, X, 1, r=2.0),
    ],
    "nguyen21_feature_width": [
        *(
            dataclasses.replace(call, kwargs={**call.kwargs, "delta": 0.1})
            for call in bad_networks_or_features()
        ),
        bad(ValueError, "delta", "between 0 and 1", "1", NETWORK, X, 1, delta=1.0),
        bad(ValueError, "delta", "> 0", "0.0", NETWORK, X, 1, delta=0.0),
    ],
    "project_mean_out": bad_samples(),
    "khatri_rao_power": [
        *(dataclasses.replace(call, args=(*call.args, 2)) for call in bad_samples()),
        bad(ValueError, "r", "integer >= 1", "0", X, 0),
        bad(TypeError, "r", "integer", "2.0", X, 2.0),
        bad(ValueError, "r", "at most 10000000 columns", "3^15", X, 15),
    ],
    "lipschitz_product_squared": [*bad_weights(1), *bad_layers(W)],
    "feature_jacobian_norms_squared": bad_weights_samples_or_layers(),
    "ascend_jacobian_norms": [
        *bad_weights_samples_or_layers(),
        bad(ValueError, "steps", "integer >= 1", "0", W, X, 1, steps=0),
        bad(ValueError, "softness", "> 0", "0.0", W, X, 1, softness=0.0),
        bad(TypeError, "softness", "real number", "'soft'", W, X, 1, softness="soft"),
    ],
    "uniform_sphere": bad_sizes(),
    "gaussian": bad_sizes(),
    "digits": [
        bad(ValueError, "n", "integer >= 1", "0", 0),
        bad(ValueError, "n", "at most 1797", "1798", 1798),
        bad(TypeError, "n", "integer", "10.0", 10.0),
    ],
    "digit_labels": [
        bad(ValueError, "n", "integer >= 1", "0", 0),
        bad(ValueError, "n", "at most 1797", "1798", 1798),
        bad(TypeError, "n", "integer", "10.0", 10.0),
    ],
    "scaling": bad_samples(at_least_two=True),
    "separation": [
        *bad_samples(at_least_two=True),
        bad(ValueError, "x", "samples other than 0", "zero rows [1]", X * [[1], [0], [1], [1]]),
    ],
    "contradictions": [*bad_samples(y=Y), *bad_labels(X)],
    "gauss_newton": bad_training(),
    "gradient_descent": [
        *bad_training(),
        bad(ValueError, "step_size", "> 0", "0.0", W, X, Y, step_size=0.0),
        bad(ValueError, "step_size", "> 0", "-1.0", W, X, Y, step_size=-1.0),
        bad(TypeError, "step_size", "real number", "'large'", W, X, Y, step_size="large"),
        bad(ValueError, "record_every", "integer >= 1", "0", W, X, Y, record_every=0),
        bad(TypeError, "record_every", "integer", "1.5", W, X, Y, record_every=1.5),
        *bad_activations(W, X, Y),
    ],
    "adam": [
        *bad_training(),
        bad(ValueError, "learning_rate", "> 0", "0.0", W, X, Y, learning_rate=0.0),
        bad(TypeError, "learning_rate", "real number", "'small'", W, X, Y, learning_rate="small"),
        *bad_activations(W, X, Y),
    ],
    "gradient_flow": [
        *bad_samples(W, y=Y, times=[0, 1], activation=jax.nn.relu),
        *(
            dataclasses.replace(call, args=(*call.args, [0, 1]), kwargs={"activation": jax.nn.relu})
            for call in [*bad_weights(X, Y), *bad_labels(W, X)]
        ),
        *bad_activations(W, X, Y, [0, 1]),
        *(
            bad(ValueError, "times", "increasing from 0", got, W, X, Y, t, activation=jax.nn.relu)
            for got, t in (("0.", [0]), ("1.", [1, 2]), ("2. 1.", [0, 2, 1]), ("0. 0.", [0, 0]))
        ),
        bad(
            ValueError,
            "tolerance",
            "> 0",
            "0.0",
            W,
            X,
            Y,
            [0, 1],
            activation=jax.nn.relu,
            tolerance=0.0,
        ),
    ],
    "frozen_residuals": [
        *(dataclasses.replace(call, args=(*call.args, Y[:3], 0.1, [1])) for call in bad_kernels()),
        bad(ValueError, "residual", "3 entries", "4", K, Y, 0.1, [1]),
        bad(ValueError, "step_size", "> 0", "0.0", K, Y[:3], 0.0, [1]),
        bad(TypeError, "steps", "sequence", "3", K, Y[:3], 0.1, 3),
        bad(TypeError, "steps[0]", "integer", "1.5", K, Y[:3], 0.1, [1.5]),
        bad(ValueError, "steps[1]", ">= 0", "-1", K, Y[:3], 0.1, [1, -1]),
        bad(
            ValueError, "steps", "is finite", "2000 steps", np.diag([1.0, 2, 3]), Y[:3], 3.0, [2000]
        ),
    ],
    "difference_network": [
        *bad_weights(W, 1.0),
        bad(TypeError, "step", "non-empty tuple", "NoneType", W, None, 1.0),
        bad(ValueError, "step", "(3, 2), (2, 1)", "(3, 1)", W, (X[:3, :1],), 1.0),
        bad(ValueError, "scale", "> 0", "0.0", W, W, 0.0),
        bad(TypeError, "scale", "real number", "None", W, W, None),
    ],
    "least_norm_step": [*bad_weights(X, Y), *bad_samples(W, y=Y), *bad_labels(W, X)],
    "loss_gradient": [
        *bad_weights(X, Y),
        *bad_samples(W, y=Y),
        *bad_labels(W, X),
        *bad_activations(W, X, Y),
    ],
    "memorizing_network": [
        *bad_weights(X, Y, 0.1),
        *bad_samples(W, y=Y, epsilon=0.1),
        *(dataclasses.replace(call, args=(*call.args, 0.1)) for call in bad_labels(W, X)),
        bad(ValueError, "epsilon", "> 0", "0.0", W, X, Y, 0.0),
        bad(TypeError, "epsilon", "real number", "None", W, X, Y, None),
        bad(ValueError, "y", "can fit", "(0, 1)", W, X_APART[[0, 0, 1]], Y[:3], 0.1),
        bad(ValueError, "params", "positive definite", "singular", W, X, Y, 0.1),
    ],
    "nguyen21_convergence": [
        *bad_weights(X, Y),
        *bad_samples(W, y=Y),
        *bad_labels(W, X),
        bad(ValueError, "params", "L >= 2", "L = 1", (X[:3, :1],), X, Y),
        bad(TypeError, "room", "sequence", "1.0", W, X, Y, 1.0),
        bad(ValueError, "room", "2 numbers", "1", W, X, Y, [1.0]),
        bad(ValueError, "room[1]", "> 0", "0.0", W, X, Y, [1.0, 0.0]),
        bad(ValueError, "room[1]", "> 0", "0.0", (W[0], 0 * W[1]), X, Y),
    ],
    "nguyen21_scaled_start": [
        *bad_weights(X, Y),
        *bad_samples(W, y=Y),
        *bad_labels(W, X),
        bad(ValueError, "params", "L >= 2", "L = 1", (X[:3, :1],), X, Y),
        bad(ValueError, "params", "full row rank", "= 0", W, X, Y),
        bad(ValueError, "y", "not all 0", "zeros", W, X, 0 * Y),
    ],
    "weak_pl_counterexample": [
        *(
            dataclasses.replace(call, kwargs={"activation": jax.nn.relu})
            for call in bad_weights_or_samples()
        ),
        *bad_activations(W_4, X),
        bad(ValueError, "params", "L >= 4", "L = 3", W_3, X, activation=jax.nn.relu),
        bad(ValueError, "params", "more neurons", "2 and 2", W_4, X, activation=jax.nn.relu),
    ],
    "weak_pl_singular_values": [
        *(
            dataclasses.replace(call, kwargs={"activation": jax.nn.relu})
            for call in bad_weights_or_samples()
        ),
        *bad_activations(W, X),
        bad(ValueError, "params", "L >= 2", "L = 1", (X[:3, :1],), X, activation=jax.nn.relu),
    ],
    "nguyen20_recalled_condition": [
        *(
            dataclasses.replace(call, args=(*call.args, 0.5), kwargs={"activation": jax.nn.relu})
            for call in [*bad_weights(X, Y), *bad_labels(W_3, X)]
        ),
        *bad_samples(W_3, y=Y, gamma=0.5, activation=jax.nn.relu),
        *bad_activations(W_3, X, Y, 0.5),
        bad(ValueError, "params", "L >= 3", "L = 2", W, X, Y, 0.5, activation=jax.nn.relu),
        bad(ValueError, "gamma", "> 0", "0.0", W_3, X, Y, 0.0, activation=jax.nn.relu),
    ],
    "weak_pl_factor": [
        *(
            dataclasses.replace(call, args=(*call.args, 0.5), kwargs={"activation": jax.nn.relu})
            for call in bad_weights_or_samples()
        ),
        *bad_activations(W, X, 0.5),
        bad(ValueError, "params", "L >= 2", "L = 1", (X[:3, :1],), X, 0.5, activation=jax.nn.relu),
        bad(ValueError, "gamma", "> 0", "0.0", W, X, 0.0, activation=jax.nn.relu),
    ],
    "weak_pl_start": [
        *(
            dataclasses.replace(call, args=(*call.args, 0.5), kwargs={"activation": jax.nn.relu})
            for call in [*bad_weights(X, Y), *bad_labels(W, X)]
        ),
        *bad_samples(W, y=Y, gamma=0.5, activation=jax.nn.relu),
        *bad_activations(W, X, Y, 0.5),
        bad(ValueError, "params", "L >= 3", "L = 2", W, X, Y, 0.5, activation=jax.nn.relu),
        bad(ValueError, "params", "wide layer", "of 0", W_3, X, Y, 0.5, activation=jax.nn.relu),
        bad(ValueError, "activation", "σ(0) = 0", "0.5", W_3, X, Y, 0.5, activation=jax.nn.sigmoid),
        bad(ValueError, "gamma", "> 0", "0.0", W_3, X, Y, 0.0, activation=jax.nn.relu),
    ],
    "weak_pl_flow": [
        *(
            dataclasses.replace(call, args=(*call.args, 0.5), kwargs={"activation": jax.nn.relu})
            for call in [*bad_weights(X, Y), *bad_labels(W, X)]
        ),
        *bad_samples(W, y=Y, gamma=0.5, activation=jax.nn.relu),
        *bad_activations(W, X, Y, 0.5),
        bad(
            ValueError, "params", "L >= 2", "L = 1", (X[:3, :1],), X, Y, 0.5, activation=jax.nn.relu
        ),
        bad(ValueError, "gamma", "> 0", "0.0", W, X, Y, 0.0, activation=jax.nn.relu),
    ],
    "arora19_complexity": [
        *bad_samples(y=Y),
        *bad_labels(X),
        bad(ValueError, "x", "positive definite", "singular", X_APART[[0, 0, 1]], Y[:3]),
    ],
    "read_data": [
        bad(TypeError, "path", "path or an open file", "int", 3),
        bad(TypeError, "path", "path or an open file", "NoneType", None),
        bad(ValueError, "path", "finite number", "'b'", io.StringIO("1,2\n3,b\n")),
        bad(ValueError, "path", "two rows", "1", io.StringIO("1,2\n")),
        bad(ValueError, "columns", "names", "['d']", io.StringIO("a,b\n1,2\n"), columns=["d"]),
        bad(TypeError, "columns", "sequence of names", "'a'", io.StringIO("a\n1\n"), columns="a"),
        bad(ValueError, "sep", "one character", "'--'", io.StringIO("1--2\n"), sep="--"),
        bad(ValueError, "sep", "one character", "3", io.StringIO("1,2\n"), sep=3),
        bad(ValueError, "decimal", "'.' or ','", "';'", io.StringIO("1,2\n"), decimal=";"),
        bad(ValueError, "decimal", "not sep", "','", io.StringIO("1\n"), sep=",", decimal=","),
        bad(TypeError, "header", "True, False or None", "1", io.StringIO("1,2\n"), header=1),
    ],
    "conditioning_report": [
        *bad_samples(at_least_two=True),
        bad(ValueError, "scale", "'sphere' or 'none'", "'unit'", X, scale="unit"),
        bad(ValueError, "widths", "at least one hidden layer", "(3, 1)", X, (3, 1)),
        bad(ValueError, "widths", "scalar output last", "(3, 8)", X, (3, 8)),
        bad(TypeError, "widths", "sequence", "8", X, 8),
        bad(ValueError, "x", "2 columns", "(4, 3)", X, (2, 8, 1)),
        bad(ValueError, "x", "samples other than 0", "zero rows 3", X_ZERO, scale="none"),
        bad(ValueError, "x", "squares are numbers", "1e+200", 1e200 * X_APART, scale="none"),
        bad(ValueError, "x", "squares are numbers", "1e-200", 1e-200 * X_APART, scale="none"),
        bad(ValueError, "seeds", "at least one", "none", X_APART, seeds=[]),
        bad(TypeError, "seeds", "sequence", "3", X_APART, seeds=3),
    ],
    "sweep": [
        bad(TypeError, "executor", "Executor", "int", measure, {"n": [1]}, [0], executor=4),
        bad(TypeError, "cache", "path of a folder", "bool", measure, {"n": [1]}, [0], cache=True),
        bad(TypeError, "same_draws", "True", "1", measure, {"n": [1]}, [0], same_draws=1),
        bad(TypeError, "measure", "function", "float", 1.0, {"n": [1]}, [0]),
        bad(ValueError, "grid", "at least one point", "none", measure, {}, [0]),
        bad(ValueError, "grid", "at least one point", "none", measure, [], [0]),
        bad(ValueError, "grid", "at least one point", "none", measure, {"n": [], "d": [1]}, [0]),
        bad(ValueError, "grid", "same names", "['d']", measure, [{"n": 1}, {"d": 1}], [0]),
        bad(ValueError, "grid", "other names", "['seed']", measure, {"seed": [1]}, [0]),
        bad(ValueError, "grid", "other names", "['key']", measure, [{"key": 1}], [0]),
        bad(TypeError, "grid", "sequence", "5", measure, 5, [0]),
        bad(TypeError, "grid", "map names to values", "5", measure, [5], [0]),
        bad(TypeError, "grid['n']", "sequence", "5", measure, {"n": 5}, [0]),
        bad(TypeError, "grid['init']", "sequence", "'he'", measure, {"init": "he"}, [0]),
        bad(TypeError, "grid", "numbers, strings", "object", measure, {"n": [object()]}, [0]),
        bad(ValueError, "seeds", "at least one", "none", measure, {"n": [1]}, []),
        bad(TypeError, "seeds", "sequence", "3", measure, {"n": [1]}, 3),
        bad(TypeError, "seeds[1]", "integer", "1.5", measure, {"n": [1]}, [0, 1.5]),
        bad(TypeError, "seeds[0]", "integer", "True", measure, {"n": [1]}, [True]),
        bad(ValueError, "seeds[0]", "integer >= 0", "-1", measure, {"n": [1]}, [-1]),
        bad(ValueError, "seeds", "different integers", "[0, 0]", measure, {"n": [1]}, [0, 0]),
        bad(ValueError, "grid", "different points", "'n': 1", measure, {"n": [1, 1]}, [0]),
        bad(ValueError, "measure", "names other", "['n']", lambda **_: {"n": 1}, {"n": [1]}, [0]),
        bad(TypeError, "measure", "numbers", "None", lambda **_: None, {"n": [1]}, [0]),
        bad(TypeError, "measure", "numbers", "'a'", lambda **_: "a", {"n": [1]}, [0]),
        bad(TypeError, "measure", "numbers", "(1, 2)", lambda **_: (1, 2), {"n": [1]}, [0]),
        bad(TypeError, "measure", "numbers", "array", lambda **_: {"a": K}, {"n": [1]}, [0]),
        bad(TypeError, "measure", "numbers", "'b'", lambda **_: {"a": [1, "b"]}, {"n": [1]}, [0]),
        bad(
            ValueError,
            "measure",
            "different names",
            "['a_0', 'a_1', 'a_0']",
            lambda **_: {"a": [1, 2], "a_0": 3},
            {"n": [1]},
            [0],
        ),
        bad(
            ValueError,
            "measure",
            "names other",
            "['n_0']",
            lambda **_: {"n": [1]},
            {"n_0": [1]},
            [0],
        ),
    ],
    "fit_exponent": [
        bad(TypeError, "table", "DataFrame", "dict", {"n": [1]}, "n", "y"),
        bad(ValueError, "x", "column", "'width'", TABLE, "width", "y"),
        bad(ValueError, "y", "column", "'value'", TABLE, "n", "value"),
        bad(ValueError, "table", "column", "'seed'", TABLE[["n", "y"]], "n", "y"),
        bad(ValueError, "table", "two seeds", "1", TABLE[:2], "n", "y"),
        bad(ValueError, "x", "two different values", "one", TABLE[::2], "n", "y"),
        bad(ValueError, "y", "positive", "0.0", TABLE, "n", "zero"),
        bad(ValueError, "x", "positive", "0.0", TABLE, "zero", "y"),
        bad(ValueError, "y", "positive", "nan", TABLE.assign(y=NAN), "n", "y"),
        bad(ValueError, "y", "positive", "inf", TABLE.assign(y=np.inf), "n", "y"),
        bad(ValueError, "confidence", "between 0 and 1", "95", TABLE, "n", "y", confidence=95),
        bad(ValueError, "confidence", "> 0", "0.0", TABLE, "n", "y", confidence=0.0),
        bad(TypeError, "confidence", "number", "'high'", TABLE, "n", "y", confidence="high"),
        bad(ValueError, "x", "column", "['n']", TABLE, ["n"], "y"),
        bad(TypeError, "y", "numbers", "str", TABLE.assign(y="a"), "n", "y"),
    ],
    "Claims": [
        bad(TypeError, "made_for", "text", "4", 4),
        bad(TypeError, "made_for", "text", "None", None),
    ],
    "Claims.verdict": bad_verdicts(),
    "Claims.conclude": [
        bad(ValueError, "conclude", "at least one verdict", "none", ntk_utils.Claims()),
    ],
    "use_style": [
        bad(ValueError, "context", "notebook", "'cinema'", "cinema"),
        bad(ValueError, "context", "notebook", "2", 2),
    ],
    "plotting.measured": [
        bad(TypeError, "ax", "matplotlib axes", "NoneType", None, TABLE, "n", "y", label=""),
        bad(ValueError, "x", "column", "'width'", AX, TABLE, "width", "y", label=""),
        bad(TypeError, "table", "DataFrame", "int", AX, 3, "n", "y", label=""),
        bad(ValueError, "y", "column", "'value'", AX, TABLE, "n", "value", label=""),
    ],
    "plotting.mean": [
        bad(TypeError, "ax", "matplotlib axes", "str", "ax", X[0], X[0], X[0], label=""),
    ],
    "plotting.published": [
        bad(TypeError, "ax", "matplotlib axes", "str", "ax", X[0], X[0], label=""),
    ],
    "plotting.bound": [
        bad(TypeError, "ax", "matplotlib axes", "Figure", Figure(), X[0], X[0], side="", label=""),
        bad(ValueError, "side", "lower", "'left'", AX, X[0], X[0], side="left", label=""),
    ],
    "plotting.limit": [
        bad(TypeError, "ax", "matplotlib axes", "str", "ax", X[0], X[0], label=""),
    ],
    "plotting.reference_slope": [
        bad(TypeError, "ax", "matplotlib axes", "str", "", [1], 1.0, through=(1, 1), label=""),
        bad(ValueError, "x", "> 0", "0.0", AX, [0, 1], 1.0, through=(1, 1), label=""),
        bad(ValueError, "x", "at least one", "none", AX, [], 1.0, through=(1, 1), label=""),
        bad(ValueError, "through[1]", "> 0", "-1.0", AX, [1, 2], 1.0, through=(1, -1), label=""),
    ],
    "plotting.log_log": [
        bad(TypeError, "ax", "matplotlib axes", "str", "ax", [1, 2]),
        bad(ValueError, "sizes[1]", "> 0", "0.0", AX, [1, 0]),
    ],
    "plotting.spectrum": [
        bad(TypeError, "ax", "matplotlib axes", "list", [AX], X[0], label=""),
    ],
    "plotting.panels": [
        bad(ValueError, "n", "integer >= 1", "0", 0),
        bad(TypeError, "n", "integer", "2.0", 2.0),
        bad(ValueError, "rows", "integer >= 1", "0", 2, rows=0),
        bad(ValueError, "size", "number > 0", "-1.0", 2, size=-1.0),
    ],
    "plotting.legend": [
        bad(TypeError, "figure", "matplotlib figure", "Axes", AX),
        bad(ValueError, "figure", "something with a label", "nothing", AX.figure),
    ],
    "plotting.architecture": [
        bad(TypeError, "ax", "matplotlib axes", "NoneType", None, NETWORK, 4),
        bad(TypeError, "network", "network with widths", "tuple", AX, (3, 8, 1), 4),
        bad(ValueError, "n_samples", "integer >= 1", "0", AX, NETWORK, 0),
        bad(TypeError, "n_samples", "integer", "4.0", AX, NETWORK, 4.0),
    ],
}

# made by functions, for users to read or catch: nothing to refuse
EXEMPT = {
    "ClaimsFail",
    "ConditioningReport",
    "ConstantColumnWarning",
    "Convergence",
    "DataWarning",
    "DominantColumnWarning",
    "Enclosure",
    "Estimate",
    "Exponent",
    "Fit",
    "Flow",
    "FlowConvergence",
    "GapCoefficients",
    "HeaderWarning",
    "RepeatedRowWarning",
    "RowNumberWarning",
    "Sandwich",
    "ScaledStart",
    "Solution",
    "TrainingInterrupted",
    "Trajectory",
    "UndecidedGate",
}


def named(name):
    """The public function of this name, `plotting.bound` or `Claims.verdict` as well as `apply`."""
    place, _, function = name.rpartition(".")
    return getattr(getattr(ntk_utils, place) if place else ntk_utils, function)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("name", "call"),
    [
        pytest.param(name, call, id=f"{name}-{call.argument}-{call.got}")
        for name, calls in BAD_CALLS.items()
        for call in calls
    ],
)
def test_bad_input_raises_an_error_that_names_it_what_was_expected_and_what_came(name, call):
    with pytest.raises((ValueError, TypeError)) as raised:
        named(name)(*call.args, **call.kwargs)
    assert raised.type is call.error
    match = re.fullmatch(r"(\S+): expected (.*)[,;]? got (.*)", str(raised.value), re.DOTALL)
    assert match, f"not of the form 'argument: expected …, got …': {raised.value}"
    argument, expected, _ = match.groups()
    assert argument == call.argument
    assert call.expected in expected
    assert call.got in str(raised.value)[match.end(2) :]


def test_every_public_function_has_bad_input_in_the_table():
    callables = {name for name in ntk_utils.__all__ if callable(getattr(ntk_utils, name))}
    of_plotting = {
        f"plotting.{name}"
        for name, value in vars(ntk_utils.plotting).items()
        if getattr(value, "__module__", "") == ntk_utils.plotting.__name__ and name[0] != "_"
    }
    assert len(of_plotting) > 8
    of_claims = {f"Claims.{name}" for name in vars(ntk_utils.Claims) if name[0] != "_"}
    in_the_table = {name for name, calls in BAD_CALLS.items() if calls} | {"plotting.use_style"}
    assert (callables | of_plotting | of_claims) - in_the_table == EXEMPT
