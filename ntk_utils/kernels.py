"""The empirical NTK and its layer terms, and what they tend to at infinite width.

All in the standard parametrization of `networks`: K̄ = J Jᵀ, J the N × (number of weights) Jacobian
of the outputs in all weights, nothing divided by a width.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils._scale import polar
from ntk_utils.activations import Activation, is_activation, relu, slopes, values
from ntk_utils.networks import Network, Params, is_relu_network, where_x_lies


@checked(params=_checks.weights, x=_checks.placed_inputs, activation=is_activation)
def empirical_ntk(
    params: Params, x: Float[ArrayLike, "N d"], *, activation: Activation = relu
) -> Float[Array, "N N"]:
    """Compute the empirical NTK without the Jacobian.

        K̄ = J Jᵀ = Σ_{k=0}^{L-1} (F_k F_kᵀ) ∘ (B_{k+1} B_{k+1}ᵀ),

    with the feature and backward matrices of `networks`; ∘ is the entrywise product. All layers are
    trained. The cost is O(N² Σ n_l), where J Jᵀ costs O(N² · number of weights); only tiles on and
    below the diagonal are computed. A layer wider than both its neighbours is never held as a whole
    once it is large, so memory is O(N² + N · the other widths).

    Source: the decomposition is restated for this object by Karhadkar, Murray, Montúfar
      (arXiv:2405.14630).

    Args:
      params: (W_1, …, W_L).
      x: samples, shape (N, d). If its rows are placed over several devices (`jax.sharding`), so are
        those of K̄, and each device computes its own.
      activation: σ.

    Returns: K̄, shape (N, N), positive semidefinite; the limit of `limiting_ntk` is that of
      K̄ ∏_{l=1}^{L-1} 2/n_l for weights of variance 1, and the ReLU.

    Raises:
      ValueError, TypeError: matrices that do not fit together or do not fit x, non-finite entries,
        a wrong rank, an activation that is not an elementwise function of JAX.
    """
    return where_x_lies(_empirical_ntk, params, x, _blocks(x), activation)


@checked(params=_checks.weights, x=_checks.placed_inputs, activation=is_activation)
def layer_ntks(
    params: Params, x: Float[ArrayLike, "N d"], *, activation: Activation = relu
) -> Float[Array, "L N N"]:
    """Compute the L terms of the empirical NTK, one for each weight matrix.

    Entry k = 0, …, L-1 is (F_k F_kᵀ) ∘ (B_{k+1} B_{k+1}ᵀ): the NTK of a network of which W_{k+1}
    alone is trained. Each is positive semidefinite and they sum to `empirical_ntk`, so λ_min(K̄) is
    at least the sum of theirs.

    Args:
      params: (W_1, …, W_L).
      x: samples, shape (N, d).
      activation: σ.

    Returns: the terms, shape (L, N, N).
    """
    return where_x_lies(_layer_ntks, params, x, _blocks(x), activation)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _empirical_ntk(params, x, blocks, activation):
    return _sum_of_terms(_layer_terms(params, x, blocks, activation))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _layer_ntks(params, x, blocks, activation):
    terms = [whole(tiles) for tiles in _layer_terms(params, x, blocks, activation)]
    return x.__array_namespace__().stack(terms)


@functools.partial(jax.jit, static_argnums=(2, 3))
def kernel_and_factors(params, x, blocks, activation):
    """K̄, F_k F_kᵀ (None where n_k < N), ‖(B_{k+1})_i:‖² for every i; k = 0, …, L-1.

    Every Gram matrix is formed once.
    """
    xp, terms, grams, rows = x.__array_namespace__(), [], [], []
    pairs = _gram_pairs(params, x, blocks, activation)
    for w, (gram_f, gram_b) in zip(reversed(params), pairs, strict=True):
        grams.append(whole(gram_f) if len(w) >= len(x) else None)
        rows.append(xp.ones_like(x[:, 0]) if gram_b is None else _diagonal(gram_b))
        terms.append(_product(gram_b, gram_f))
    return _sum_of_terms(terms[::-1]), grams[::-1], rows[::-1]


def _layer_terms(params, x, blocks, activation):
    """The terms (F_k F_kᵀ) ∘ (B_{k+1} B_{k+1}ᵀ), k = 0, …, L-1, each as a list of tiles."""
    pairs = _gram_pairs(params, x, blocks, activation)
    return [_product(gram_b, gram_f) for gram_f, gram_b in pairs][::-1]


def _sum_of_terms(terms):
    return whole([functools.reduce(operator.iadd, tiles) for tiles in zip(*terms, strict=True)])


def _gram_pairs(params, x, blocks, activation):
    """The tiles of F_k F_kᵀ and of B_{k+1} B_{k+1}ᵀ, from k = L-1 down to 0; none is kept here.

    B_L B_Lᵀ = 1 1ᵀ is not formed, but None.
    """
    gram_f, f, of_layers = _forward(params, x, blocks, activation)
    b, b_times_w = x.__array_namespace__().ones_like(x[:, :1]), None
    yield gram_f.pop(), None
    for k in range(len(params) - 1, 0, -1):  # here b is B_{k+1}, or b_times_w is B_{k+1} W_{k+1}ᵀ
        w_in, w_out = params[k - 1 : k + 1]
        if of_layers[k] is None:
            gram_b, b_times_w = _backward_in_chunks(
                f[k - 1], w_in, w_out, b, blocks, activation, last=k == 1
            )
        else:
            b = of_layers[k] * (b @ w_out.T if b_times_w is None else b_times_w)
            gram_b, b_times_w = gram_tiles(b, blocks), None
        yield gram_f.pop(), gram_b


def _forward(params, x, blocks, activation):
    """F_k F_kᵀ by its tiles, F_k and σ'(G_k), k = 0, …, L-1; None for an F_k that is not held."""
    gram_f, f, of_layers, f_times_w = [gram_tiles(x, blocks)], [x], [None], None
    for k in range(1, len(params)):
        w_in, w_out = params[k - 1 : k + 1]
        if _streams(params, k, len(x)):
            gram, f_times_w = _forward_in_chunks(f[-1], w_in, w_out, blocks, activation)
            f_k, slope = None, None
        else:
            g = f[-1] @ w_in if f_times_w is None else f_times_w
            f_k, slope = values(activation, g), slopes(activation, g)
            gram, f_times_w = gram_tiles(f_k, blocks), None
        gram_f.append(gram)
        f.append(f_k)
        of_layers.append(slope)
    return gram_f, f, of_layers


# --- symmetry: a Gram matrix by its tiles on and left of the diagonal -----------------------------


def row_blocks(n: int) -> tuple[tuple[int, int], ...]:
    """Rows lo:hi of the tiles; all rows in one where there is little to gain."""
    n_blocks = min(8, n // 200) if n >= 500 else 1
    edges = [n * i // n_blocks for i in range(n_blocks + 1)]
    return tuple(itertools.pairwise(edges))


def _blocks(x):
    """The tiles of the kernel of x; none where its rows lie on several devices, each a block."""
    return ((0, len(x)),) if _checks.is_placed(x) else row_blocks(len(x))


def gram_tiles(a, blocks):
    """A Aᵀ by its tiles; in NumPy by one, because BLAS uses the symmetry itself."""
    if len(blocks) == 1 or isinstance(a, np.ndarray):
        return [a @ a.T]  # without slices XLA compiles a small kernel in three quarters of the time
    return [a[lo:hi] @ a[:hi].T for lo, hi in blocks]


def _product(a, b):
    """A ∘ B by tiles, in place of A where it is NumPy's; B itself where A is None, all ones."""
    return b if a is None else list(map(operator.imul, a, b))


def _diagonal(tiles):
    """The diagonal of the matrix: a tile of rows lo:hi has hi columns."""
    diagonals = [t.diagonal(t.shape[1] - t.shape[0]) for t in tiles]
    return tiles[0].__array_namespace__().concatenate(diagonals)


def whole(tiles):
    """The symmetric matrix of which `gram_tiles` has given the tiles."""
    if len(tiles) == 1:
        return tiles[0]
    n, xp = tiles[-1].shape[1], tiles[-1].__array_namespace__()
    lower = xp.tril(xp.concatenate([xp.pad(t, ((0, 0), (0, n - t.shape[1]))) for t in tiles]))
    return lower + xp.tril(lower, -1).T


# --- memory: the units of a wide layer in chunks --------------------------------------------------

_LARGE = 2**22  # entries of a feature matrix that is not held if it can be helped, 32 MiB
_CHUNK = 4096  # neurons: enough for BLAS to be at its full rate


def _streams(params, k, n_samples) -> bool:
    """Whether F_k is too large to be held, and narrower layers on both sides of it are."""
    (before, n), after = params[k - 1].shape, params[k].shape[1]
    return n_samples * n > _LARGE and n >= before and n > after


def _forward_in_chunks(f_below, w_in, w_out, blocks, activation):
    """F_k F_kᵀ and F_k W_{k+1} without F_k."""

    def of_chunk(w_in, w_out):
        # in place: the pages of another large array would cost a tenth of the kernel
        f = values(activation, f_below @ w_in, overwrite_g=True)
        return gram_tiles(f, blocks), f @ w_out

    return _sum_over_chunks(of_chunk, w_in, w_out)


def _backward_in_chunks(f_below, w_in, w_out, b_above, blocks, activation, last):
    """B_k B_kᵀ, and B_k W_kᵀ but for the last layer on the way back, without F_k and B_k."""

    def of_chunk(w_in, w_out):
        slope = slopes(activation, f_below @ w_in)
        b = operator.imul(b_above @ w_out.T, slope)
        return gram_tiles(b, blocks), None if last else b @ w_in.T

    return _sum_over_chunks(of_chunk, w_in, w_out)


def _sum_over_chunks(of_chunk, w_in, w_out):
    """Sum a function of columns of W_k and rows of W_{k+1} over chunks of layer k's neurons."""
    in_numpy = isinstance(w_out, np.ndarray)
    n_chunks = math.ceil(len(w_out) / (_CHUNK if in_numpy else _CHUNK // 4))
    size = math.ceil(len(w_out) / n_chunks)
    if in_numpy:
        chunks = (slice(i * size, (i + 1) * size) for i in range(n_chunks))
        return functools.reduce(
            lambda total, part: jax.tree.map(operator.iadd, total, part),
            (of_chunk(w_in[:, chunk], w_out[chunk]) for chunk in chunks),
        )

    def add(i, total):
        columns = jax.lax.dynamic_slice_in_dim(w_in, i * size, size, axis=1)
        rows = jax.lax.dynamic_slice_in_dim(w_out, i * size, size)
        return jax.tree.map(jnp.add, total, of_chunk(columns, rows))

    n_full = len(w_out) // size
    left = of_chunk(w_in[:, n_full * size :], w_out[n_full * size :])  # or zeros, of no neurons
    return jax.lax.fori_loop(0, n_full, add, left)


@checked(x=_checks.inputs, depth=_checks.positive_integer)
def limiting_ntk(x: Float[ArrayLike, "N d"], *, depth: int) -> Float[Array, "N N"]:
    """Compute the limiting NTK K^(L) of infinite width, through neural-tangents.

        K^(1) = G^(1) = X Xᵀ,   K^(l) = K^(l-1) ∘ Ġ^(l) + G^(l),
        G^(l)_ij = 2 E[σ(u) σ(v)],   Ġ^(l)_ij = 2 E[σ'(u) σ'(v)],
        (u, v) ~ N(0, A),   A the 2 × 2 block of G^(l-1) in rows and columns i, j.

    Normalisation: K^(L)_ii = L ‖x_i‖², and K^(L) is the limit of K̄ ∏_{l=1}^{L-1} 2/n_l for weights
    of variance 1 (Jacot, Gabriel, Hongler, arXiv:1806.07572; Lemma 3.1 of arXiv:2012.11654).

    Args:
      x: samples, shape (N, d).
      depth: the number L of weight matrices, at least 1.

    Returns: K^(L), shape (N, N).
    """
    if isinstance(x, jax.core.Tracer):
        return x.shape[1] * _limiting_kernel_fn(depth)(x)
    norms, u = polar(x)  # of any scale: the kernel multiplies four norms with one another
    k = np.array(x.shape[1] * _limiting_kernel_fn(depth)(_checks.on_device(u)))
    i, j, angle = _nearly_parallel(u, u @ u.T)
    k[i, j] = k[j, i] = depth - _gap(angle, depth)
    np.fill_diagonal(k, depth)
    return _checks.on_device(norms[:, None] * norms * k)


def _gap(angle, depth):
    """L - K^(L) of two samples of norm 1 at this angle: exact where the angle is small."""
    gap = versine = _versine(angle)
    for layer in range(1, depth):
        versine, derivative = arc_cosine(angle)
        gap = gap + (layer - gap) * (1 - derivative) + versine
        angle = _angle(versine)
    return gap


@checked(x=_checks.inputs, depth=_checks.positive_integer)
def limiting_layer_ntks(x: Float[ArrayLike, "N d"], *, depth: int) -> Float[np.ndarray, "L N N"]:
    """Compute the L terms of the limiting NTK, one for each weight matrix.

        G^(k+1) ∘ Ġ^(k+2) ∘ … ∘ Ġ^(L),   k = 0, …, L-1,
        G^(l)_ij = ‖x_i‖ ‖x_j‖ φ^{l-1}(c_ij),   Ġ^(l)_ij = φ'(φ^{l-2}(c_ij)),
        φ(c) = (sin θ + (π-θ) c)/π,   φ'(c) = (π-θ)/π,   θ = arccos c,

    c_ij the cosine between two samples. Entry k is the limit of entry k of `layer_ntks`, times
    ∏_{l=1}^{L-1} 2/n_l, for weights of variance 1. They sum to `limiting_ntk`, which goes through
    neural-tangents. Source: the recursion of Lemma 3.1 of arXiv:2012.11654, unrolled.

    Args:
      x: samples, shape (N, d). A zero row gives zeros.
      depth: the number L of weight matrices, at least 1.

    Returns: the terms, shape (L, N, N); the diagonal of each is ‖x_i‖².
    """
    norms, u = polar(x)
    angle = angles(u)
    g, derivatives = [np.cos(angle)], []
    for _ in range(depth - 1):
        versine, derivative = arc_cosine(angle)
        g.append(1 - versine)
        derivatives.append(derivative)
        angle = _angle(versine)
    # Ġ^(k+2) ∘ … ∘ Ġ^(L), each from the one behind it
    behind = [*itertools.accumulate(reversed(derivatives), operator.mul, initial=1.0)][::-1]
    return np.outer(norms, norms) * np.stack(list(map(operator.mul, g, behind)))


# --- angles: λ_min of two samples falls like theirs, and a cosine cannot tell small ones from 0 ---


def angles(u):
    """The angles between directions, as `polar` returns them; a row 0 counts as orthogonal."""
    cosine = u @ u.T
    angle = np.arccos(np.clip(cosine, -1, 1))
    i, j, small = _nearly_parallel(u, cosine)
    angle[i, j] = angle[j, i] = small
    np.fill_diagonal(angle, 0)
    return angle


def _nearly_parallel(u, cosine):
    """The pairs i < j that point almost the same or the opposite way, with their angles."""
    i, j = np.nonzero(np.triu(np.abs(cosine) > 1 - 1e-4, k=1))
    at_once = max(1, 2**22 // u.shape[1])  # entries of all differences of directions: 32 MiB
    angle = np.empty(len(i))
    for chunk in (slice(lo, lo + at_once) for lo in range(0, len(i), at_once)):
        a, b = u[i[chunk]], u[j[chunk]]
        # W. Kahan's formula: right to the last digits at every angle
        angle[chunk] = 2 * np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    return i, j, angle


def arc_cosine(angle):
    """1 - φ(c) and φ'(c), φ = 2 E[σ(u) σ(v)] and φ' = 2 E[σ'(u) σ'(v)] for c = E[uv] = cos(angle).

    u and v are standard Gaussian, and φ(c) = (sin θ + (π-θ) c)/π.
    """
    versine = _versine(angle)
    of_next = versine + (angle - np.sin(angle) - angle * versine) / np.pi
    return of_next, 1 - angle / np.pi


def _versine(angle):
    return 2 * np.sin(angle / 2) ** 2


def _angle(versine):
    return 2 * np.arcsin(np.sqrt(np.clip(versine / 2, 0, 1)))


@checked(network=is_relu_network, x=_checks.inputs)
def wide_layer_ntks(network: Network, x: Float[ArrayLike, "N d"]) -> Float[np.ndarray, "L N N"]:
    """Return what the layer terms of a network of these widths would be if all of them were large.

        2^{-(L-1)} ∏_{l=1}^{L-1} n_l ∏_{l=1, l≠k+1}^{L} β_l² · limiting_layer_ntks(x)_k,

    k = 0, …, L-1, in the units of `layer_ntks`: what is left of the difference to it is an effect
    of finite width. The diagonal of each term is its exact mean at any width,
    `mean_layer_diagonals`. Their sum is neural-tangents' `kernel_fn` of `as_stax(network)`.

    Args:
      network: widths and betas.
      x: samples, shape (N, d), d = network.widths[0].

    Returns: the terms, shape (L, N, N).

    Raises:
      ValueError: x does not have network.widths[0] columns.
    """
    _checks.fits_width("x", x, network.widths[0])
    scales = 0.5 ** (network.depth - 1) * layer_products(network)
    return scales[:, None, None] * limiting_layer_ntks(x, depth=network.depth)


def layer_products(network: Network) -> np.ndarray:
    """∏_{l=1}^{L-1} n_l ∏_{l=1, l≠k+1}^{L} β_l², for k = 0, …, L-1."""
    variances = np.square(network.betas)
    # layer by layer: the product of the widths alone may be larger than any number
    per_layer = variances[:-1] * network.widths[1:-1]
    return per_layer.prod() * variances[-1] / variances


@functools.cache
def _limiting_kernel_fn(depth: int) -> Callable:
    from ntk_utils.compat import neural_tangents as nt

    layers = [nt.stax.Dense(1)]
    for _ in range(depth - 1):
        layers += [
            nt.stax.Relu(),
            nt.stax.Dense(1, W_std=math.sqrt(2)),
        ]  # in the limit the width plays no role
    _, _, kernel_fn = nt.stax.serial(*layers)
    return jax.jit(lambda x: kernel_fn(x, None, "ntk"))


def empirical_ntk_fn(apply_fn: Callable, *, implementation: str | None = None) -> Callable:
    """Make the empirical NTK of any network that JAX can differentiate, through neural-tangents.

        K_ij = (1/C) Σ_{c=1}^{C} ⟨∂f_c(x_i)/∂θ, ∂f_c(x_j)/∂θ⟩,

    C the number of outputs of one sample; a scalar network (C = 1) gets J Jᵀ. Fully connected
    networks without biases are faster with `empirical_ntk`.

    Args:
      apply_fn: `apply_fn(params, x)` maps parameters (any pytree) and samples (N, …) to outputs (N,
        …), each sample on its own (no batch normalisation).
      implementation: of neural-tangents, "STRUCTURED_DERIVATIVES", "JACOBIAN_CONTRACTION",
        "NTK_VECTOR_PRODUCTS" or "AUTO", which compiles all three and takes the one of the fewest
        operations. By default the first, the fastest in our benchmarks, where it runs, and the
        second where it does not.

    Returns: `ntk(params, x)`, jitted, which returns K of shape (N, N).

    Raises:
      TypeError: `apply_fn` is not callable.
      ValueError: neural-tangents has no such implementation.

    Warns:
      UserWarning: by default, where STRUCTURED_DERIVATIVES does not run on this network.
    """
    from ntk_utils.compat import neural_tangents as nt

    if not callable(apply_fn):
        raise TypeError(
            f"apply_fn: expected a function of (params, x), got {type(apply_fn).__name__}"
        )
    known = nt.NtkImplementation.__members__
    if implementation is not None and implementation not in list(known):
        raise ValueError(
            f"implementation: expected one of {', '.join(known)}, got {implementation!r}"
        )

    def outputs_in_a_row(params, x):
        return apply_fn(params, x).reshape(x.shape[0], -1)

    def by(implementation, params, x):
        return nt.empirical_ntk_fn(
            outputs_in_a_row, trace_axes=(-1,), vmap_axes=0, implementation=known[implementation]
        )(x, None, params)

    def ntk(params, x):
        if implementation is not None:
            return by(implementation, params, x)
        jax.eval_shape(outputs_in_a_row, params, x)  # what is wrong with apply_fn is said by itself
        try:
            with (
                warnings.catch_warnings()
            ):  # a primitive without a rule of its own has the general one
                warnings.filterwarnings("ignore", message="No Jacobian rule found")
                return by("STRUCTURED_DERIVATIVES", params, x)
        except Exception as error:
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            warnings.warn(
                "STRUCTURED_DERIVATIVES of neural-tangents does not run on this network, and "
                f"JACOBIAN_CONTRACTION does its work, slower: {said}",
                stacklevel=2,
            )
            return by("JACOBIAN_CONTRACTION", params, x)

    return jax.jit(ntk)
