"""The empirical NTK and its layer terms, and the limiting NTK of infinite width.

All in the standard parametrization of `networks`: K̄ = J Jᵀ, J the N × (number of weights) Jacobian
of the outputs in all weights, nothing divided by a width.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils.networks import Params, backward, features


@checked(params=_checks.weights, x=_checks.inputs)
@jax.jit
def empirical_ntk(params: Params, x: Float[ArrayLike, "N d"]) -> Float[Array, "N N"]:
    """Compute the empirical NTK without the Jacobian.

        K̄ = J Jᵀ = Σ_{k=0}^{L-1} (F_k F_kᵀ) ∘ (B_{k+1} B_{k+1}ᵀ),

    with the feature and backward matrices of `networks`; ∘ is the entrywise product. All layers are
    trained. The cost is O(N² Σ n_l), where J Jᵀ costs O(N² · number of weights).

    Source: the decomposition is restated for this object by Karhadkar, Murray, Montúfar
      (arXiv:2405.14630).

    Args:
      params: (W_1, …, W_L).
      x: samples, shape (N, d).

    Returns: K̄, shape (N, N), positive semidefinite; the limit of `limiting_ntk` is that of
      K̄ ∏_{l=1}^{L-1} 2/n_l for weights of variance 1.

    Raises:
      ValueError, TypeError: matrices that do not fit together or do not fit x, non-finite entries,
        a wrong rank.
    """
    return sum(_layer_terms(params, x))


@checked(params=_checks.weights, x=_checks.inputs)
@jax.jit
def layer_ntks(params: Params, x: Float[ArrayLike, "N d"]) -> Float[Array, "L N N"]:
    """Compute the L terms of the empirical NTK, one for each weight matrix.

    Entry k = 0, …, L-1 is (F_k F_kᵀ) ∘ (B_{k+1} B_{k+1}ᵀ): the NTK of a network of which W_{k+1}
    alone is trained. Each is positive semidefinite and they sum to `empirical_ntk`, so λ_min(K̄) is
    at least the sum of theirs.

    Args:
      params: (W_1, …, W_L).
      x: samples, shape (N, d).

    Returns: the terms, shape (L, N, N).
    """
    return jnp.stack(_layer_terms(params, x))


def _layer_terms(params, x):
    f = features(params, x)
    b = backward(params, f)
    return [(f_k @ f_k.T) * (b_next @ b_next.T) for f_k, b_next in zip(f, b, strict=True)]


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
    return x.shape[1] * _limiting_kernel_fn(depth)(x)


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


def empirical_ntk_fn(
    apply_fn: Callable, *, implementation: str = "JACOBIAN_CONTRACTION"
) -> Callable:
    """Make the empirical NTK of any network that JAX can differentiate, through neural-tangents.

        K_ij = (1/C) Σ_{c=1}^{C} ⟨∂f_c(x_i)/∂θ, ∂f_c(x_j)/∂θ⟩,

    C the number of outputs of one sample; a scalar network (C = 1) gets J Jᵀ. Fully connected ReLU
    networks are faster with `empirical_ntk`.

    Args:
      apply_fn: `apply_fn(params, x)` maps parameters (any pytree) and samples (N, …) to outputs (N,
        …), each sample on its own (no batch normalisation).
      implementation: of neural-tangents, "JACOBIAN_CONTRACTION" or "NTK_VECTOR_PRODUCTS".

    Returns: `ntk(params, x)`, jitted, which returns K of shape (N, N).

    Raises:
      TypeError: `apply_fn` is not callable.
      ValueError: neural-tangents has no such implementation.
      NotImplementedError: it has, but it does not run on current JAX (AUTO,
        STRUCTURED_DERIVATIVES).
    """
    from ntk_utils.compat import neural_tangents as nt

    if not callable(apply_fn):
        raise TypeError(
            f"apply_fn: expected a function of (params, x), got {type(apply_fn).__name__}"
        )
    known = nt.NtkImplementation.__members__
    if not isinstance(implementation, str) or implementation not in known:
        raise ValueError(
            f"implementation: expected one of {', '.join(known)}, got {implementation!r}"
        )

    def outputs_in_a_row(params, x):
        return apply_fn(params, x).reshape(x.shape[0], -1)

    ntk_fn = nt.empirical_ntk_fn(
        outputs_in_a_row, trace_axes=(-1,), vmap_axes=0, implementation=known[implementation]
    )
    return jax.jit(lambda params, x: ntk_fn(x, None, params))
