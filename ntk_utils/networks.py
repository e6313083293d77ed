"""Fully connected networks in the standard parametrization, without biases.

    f_0(x) = x,   f_l(x) = σ(W_lᵀ f_{l-1}(x)) for l = 1, …, L-1,   f_L(x) = W_Lᵀ f_{L-1}(x),

with weight matrices W_l of shape (n_{l-1}, n_l), n_0 = d, n_L = 1, whose entries are independent
N(0, β_l²). Nothing is divided by √n. L counts weight matrices: L = 3 has two hidden layers, and L =
1 is the linear model. Unless an activation σ is given, it is the ReLU, σ(u) = max(u, 0), σ'(0) = 0.
"""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsFloat, SupportsIndex

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils._random import normals
from ntk_utils.activations import Activation, is_activation, relu, slopes, values

Params = Sequence[Float[ArrayLike, "_ _"]]
"""The L weight matrices W_1, …, W_L: shapes (d, n_1), (n_1, n_2), …, (n_{L-1}, 1)."""

_VARIANCE_TIMES_FAN_IN = {"lecun": 1.0, "he": 2.0}


@dataclass(frozen=True)
class Network:
    """Describe a network by its widths, the law of its initial weights, and its activation.

    Args:
      widths: (d, n_1, …, n_{L-1}, 1), positive integers; the output is scalar.
      init: "lecun" (β_l² = 1/n_{l-1}), "he" (β_l² = 2/n_{l-1}), or the L standard deviations β_1,
        …, β_L themselves.
      activation: σ, an elementwise function such as `jax.numpy.tanh`. A function of weights has to
        be told, `empirical_ntk(params, x, activation=network.activation)`; one of a network that
        knows the ReLU alone refuses another activation.

    Raises:
      ValueError, TypeError: widths that are not positive integers or do not end in 1, an unknown
        name, a number of betas other than L, betas that are not positive, an activation that is not
        an elementwise function of JAX.
    """

    widths: Sequence[SupportsIndex]
    init: str | Sequence[SupportsFloat] = "lecun"
    activation: Activation = relu

    def __post_init__(self):
        activation = is_activation("activation", self.activation)
        object.__setattr__(self, "activation", activation)
        if isinstance(self.widths, str) or not isinstance(self.widths, Sequence):
            raise TypeError(
                f"widths: expected a sequence (d, n_1, …, n_(L-1), 1), got {self.widths!r}"
            )
        widths = tuple(
            _checks.positive_integer(f"widths[{i}]", n) for i, n in enumerate(self.widths)
        )
        if len(widths) < 2 or widths[-1] != 1:
            raise ValueError(
                f"widths: expected (d, n_1, …, n_(L-1), 1), a scalar output last, got {widths}"
            )
        object.__setattr__(self, "widths", widths)

        if isinstance(self.init, str):
            if self.init not in _VARIANCE_TIMES_FAN_IN:
                raise ValueError(
                    f'init: expected "lecun", "he" or {self.depth} numbers, got {self.init!r}'
                )
            return
        if not isinstance(self.init, Sequence):
            raise TypeError(
                f'init: expected "lecun", "he" or {self.depth} numbers, got {self.init!r}'
            )
        betas = tuple(
            _checks.positive_number(f"init[{i}]", beta) for i, beta in enumerate(self.init)
        )
        if len(betas) != self.depth:
            raise ValueError(
                f"init: expected {self.depth} numbers beta_l for widths {widths}, got {len(betas)}"
            )
        object.__setattr__(self, "init", betas)

    def __repr__(self) -> str:
        name = getattr(self.activation, "__name__", self.activation)
        other = "" if self.activation is relu else f", activation={name}"
        return f"Network(widths={self.widths}, init={self.init!r}{other})"

    @property
    def depth(self) -> int:
        """The number L of weight matrices."""
        return len(self.widths) - 1

    @property
    def betas(self) -> tuple[float, ...]:
        """The standard deviations (β_1, …, β_L) of the initial weights."""
        if isinstance(self.init, str):
            return tuple(math.sqrt(_VARIANCE_TIMES_FAN_IN[self.init] / n) for n in self.widths[:-1])
        return self.init


is_network = _checks.instance_of(Network)


def is_relu_network(name: str, value) -> Network:
    """A network whose activation is the ReLU."""
    network = is_network(name, value)
    if network.activation is not relu:
        raise ValueError(
            f"{name}: expected a ReLU network, got one with the activation {network.activation}"
        )
    return network


@checked(network=is_network, key=_checks.random_key)
def init_params(network: Network, key: Key[Array, ""]) -> tuple[Float[Array, "_ _"], ...]:
    """Draw the weights: (W_l)_ij independent N(0, β_l²), float64.

    With the same key, networks that differ only in their betas get the same Gaussians, scaled.

    Args:
      network: widths and betas.
      key: a random key of JAX.

    Returns: the tuple (W_1, …, W_L), W_l of shape (n_{l-1}, n_l).
    """
    shapes = itertools.pairwise(network.widths)
    return normals(jax.random.split(key, network.depth), shapes, network.betas)


@checked(params=_checks.weights, x=_checks.placed_inputs, activation=is_activation)
def apply(
    params: Params, x: Float[ArrayLike, "N d"], *, activation: Activation = relu
) -> Float[Array, " N"]:
    """Evaluate the network, f_L(x_i) for every row of x.

    Args:
      params: (W_1, …, W_L).
      x: samples, shape (N, d).
      activation: σ.

    Returns: the N outputs, shape (N,).
    """
    return where_x_lies(_outputs, params, x, activation)


@checked(params=_checks.weights, x=_checks.placed_inputs, activation=is_activation)
def feature_matrices(
    params: Params, x: Float[ArrayLike, "N d"], *, activation: Activation = relu
) -> tuple[Float[Array, "N _"], ...]:
    """Return the feature matrices F_0, …, F_{L-1}: row i of F_k is f_k(x_i), and F_0 = X.

    Args:
      params: (W_1, …, W_L).
      x: samples, shape (N, d).
      activation: σ.

    Returns: L matrices, F_k of shape (N, n_k).
    """
    return where_x_lies(_features, params, x, activation)


@checked(params=_checks.weights, x=_checks.placed_inputs, activation=is_activation)
def backward_matrices(
    params: Params, x: Float[ArrayLike, "N d"], *, activation: Activation = relu
) -> tuple[Float[Array, "N _"], ...]:
    """Return the backward matrices B_1, …, B_L.

        (B_k)_i: = Σ_k(x_i) [∏_{l=k+1}^{L-1} W_l Σ_l(x_i)] W_L,   Σ_l(x) = diag(σ'(g_l(x))),
        B_L = (1, …, 1)ᵀ.

    Row i of B_k is the gradient of f_L(x_i) in the pre-activation g_k = W_kᵀ f_{k-1}; the gradient
    in W_k is the outer product of row i of F_{k-1} and row i of B_k.

    Args:
      params: (W_1, …, W_L).
      x: samples, shape (N, d).
      activation: σ.

    Returns: L matrices, B_k of shape (N, n_k), first B_1.
    """
    return where_x_lies(_backward, params, x, activation)


# not jitted, because without_compiling runs what calls them in NumPy
def outputs(params, x, activation=relu):
    """`apply`, unchecked."""
    return (features(params, x, activation)[-1] @ params[-1])[:, 0]


def features(params, x, activation=relu):
    """`feature_matrices`, unchecked."""
    matrices = [x]
    for w in params[:-1]:
        matrices.append(values(activation, matrices[-1] @ w))
    return tuple(matrices)


def features_and_backward(params, x, activation=relu):
    """`feature_matrices` and `backward_matrices`, unchecked, in one pass each way."""
    f, of_layers = [x], []
    for w in params[:-1]:
        g = f[-1] @ w
        f.append(values(activation, g))
        of_layers.append(slopes(activation, g))
    b = [x.__array_namespace__().ones_like(x[:, :1])]
    for w, slope in zip(params[:0:-1], reversed(of_layers), strict=True):
        b.append(slope * (b[-1] @ w.T))
    return tuple(f), tuple(reversed(b))


_outputs, _features = (jax.jit(f, static_argnums=2) for f in (outputs, features))


@functools.partial(jax.jit, static_argnums=2)
def _backward(params, x, activation):
    return features_and_backward(params, x, activation)[1]


def where_x_lies(function, params, x, *static):
    """Call a jitted function of (params, x, …); where x is placed on a mesh, place what it returns.

    The rows of the results, along the last axis but one (of vectors, the last), lie like those of
    x. XLA chooses on a mesh of its own what is sent where, whatever kind of mesh that of x is.
    """
    if not _checks.is_placed(x):
        return without_compiling(function, params, x, *static)
    mesh, rows = x.sharding.mesh, x.sharding.spec[:1]
    mesh_of_xla = Mesh(
        mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim
    )
    params = jax.device_put(tuple(params), NamedSharding(mesh_of_xla, P()))
    x = jax.device_put(x, NamedSharding(mesh_of_xla, P(*rows)))
    return jax.tree.map(
        lambda a: jax.device_put(a, NamedSharding(mesh, P(*[None] * (a.ndim - 2), *rows))),
        function(params, x, *static),
    )


def without_compiling(function, params, x, *static):
    """Call a jitted function of (params, x, …), but not compiled, in NumPy, where that is faster.

    The function may call no other one that is jitted, but `values` and `slopes`.
    """
    if any(isinstance(a, jax.core.Tracer) for a in (x, *params)) or not _in_numpy(params, x):
        return function(params, x, *static)
    on_host = function.__wrapped__(tuple(map(np.asarray, params)), np.asarray(x), *static)
    return jax.tree.map(_checks.on_device, on_host)


_LITTLE_WORK = 5e8  # multiplications: a tenth of a second in NumPy, less than XLA needs to compile


def _in_numpy(params, x) -> bool:
    """Whether x lies in this machine's memory, or there is little to do.

    On a processor NumPy's BLAS is as fast as XLA's, and a sweep over widths and sample sizes, which
    meets a new shape at almost every point, need not wait for the compiler.
    """
    if not hasattr(x, "devices") or all(device.platform == "cpu" for device in x.devices()):
        return True
    return len(x) * sum(len(x) * len(w) + w.size for w in params) <= _LITTLE_WORK


_QUADRATURE_POINTS = 25  # neural-tangents takes their square times the entries of the kernel


@checked(network=is_network)
def as_stax(network: Network):
    """Return the same network as neural-tangents' triple (init_fn, apply_fn, kernel_fn).

    Its parametrization is "standard", with W_std = β_l √n_{l-1}: `init_fn` draws from the same law
    as `init_params`, and the empirical NTK of `apply_fn` is J Jᵀ as here. `kernel_fn(x, None,
    "ntk")` is the wide-network approximation of its mean, in the same units; its expectations over
    an activation other than the ReLU are taken by Gauss–Hermite quadrature with 25 points. The
    parameters of `apply_fn` for (W_1, …, W_L) are the list [(W_1, None), (), (W_2, None), …].

    Args:
      network: widths, betas and activation.

    Returns: (init_fn, apply_fn, kernel_fn), see neural-tangents' `stax.serial`.
    """
    from ntk_utils.compat import neural_tangents as nt

    if network.activation is relu:
        sigma = nt.stax.Relu()
    else:
        with warnings.catch_warnings():  # of what is said above
            warnings.filterwarnings("ignore", "Numerical Activation Layer")
            sigma = nt.stax.ElementwiseNumerical(
                network.activation,
                deg=_QUADRATURE_POINTS,
                df=functools.partial(slopes, network.activation),
            )
    layers = []
    for fan_in, fan_out, beta in zip(
        network.widths[:-1], network.widths[1:], network.betas, strict=True
    ):
        std = beta * math.sqrt(fan_in)
        layers += [nt.stax.Dense(fan_out, W_std=std, parameterization="standard"), sigma]
    return nt.stax.serial(*layers[:-1])
