"""Vectors as messages of few bytes, and what makes sense of them at the other end.

A message is a few bytes of description, two checksums, and b bits for each of d coordinates. Its
length is what a method is charged for. Three quantizers:

| quantizer | what travels | error at the other end |
|---|---|---|
| `Lattice` | the nearest point of s Z^d, coordinates modulo 2^b | ≤ ε, with a near reference |
| `QSGD` | the norm, and levels that are rounded at random | zero on average |
| `Exact` | 64 bits a coordinate | none |

The lattice point is found from its coordinates modulo 2^b and a *reference*, a vector which the
receiver has and that is near. So b depends on the distance from the reference, not on the norm.
A checksum of the whole coordinates tells when the reference was too far.

Source: the idea is that of Davies, Gurunathan, Moshrefi, Ashkboos, Alistarh (ICLR 2021,
  arXiv:2002.09268) as Alimisis, Davies, Alistarh (ICML 2021, arXiv:2102.07214) use it; the cubic
  lattice and coordinates modulo 2^b are in the code that accompanies the latter. The format of the
  bytes and the checksums are ours. QSGD: Alistarh, Grubic, Li, Tomioka, Vojnović (NeurIPS 2017,
  arXiv:1610.02132), here with levels of a fixed number of bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from ntk_utils import _checks
from ntk_utils._checks import checked
from ntk_utils.quantization import _codec
from ntk_utils.quantization._codec import MOST_BITS, Label, MessageError, OutOfRange

__all__ = [
    "QSGD",
    "Exact",
    "Label",
    "Lattice",
    "MessageError",
    "OutOfRange",
    "decode",
    "encode_exact",
    "encode_lattice",
    "encode_qsgd",
    "lattice_bits",
    "lattice_point",
]


@dataclass(frozen=True)
class Exact:
    """Doubles as they are."""


@dataclass(frozen=True)
class Lattice:
    """Points of a cubic lattice, modulo 2^b, as fine as asked for.

    Raises:
      ValueError: an accuracy that is not positive, first_bits outside of 1, …, 54.
      TypeError: memory is not True or False.
    """

    accuracy: float = 1 / 32
    """θ: a vector is sent to an error ε = θ × (its expected size)"""
    first_bits: int = 8
    """b of a message whose receiver has a reference that the sender does not know; further bits are
    sent until the receiver can decode it"""
    memory: bool = True
    """whether a message is decoded against the one before it on its way; if not, against 0"""

    def __post_init__(self):
        _checks.positive_number("accuracy", self.accuracy)
        _bits("first_bits", self.first_bits)
        _checks.instance_of(bool)("memory", self.memory)


@dataclass(frozen=True)
class QSGD:
    """Levels 0, ±1, …, ±(2^(b-1) - 1) of the norm, rounded at random without bias.

    Raises:
      ValueError: bits outside of 2, …, 54.
    """

    bits: int = 8
    """b"""

    def __post_init__(self):
        _bits("bits", self.bits, at_least=2)


Quantizer = Exact | Lattice | QSGD


def _bits(name: str, value, at_least: int = 1) -> int:
    """A number of bits for a coordinate."""
    if not at_least <= _checks.positive_integer(name, value) <= MOST_BITS:
        raise ValueError(f"{name}: expected from {at_least} to {MOST_BITS} bits, got {value}")
    return int(value)


def _label(name: str, value) -> Label:
    """A label, or a pair of integers."""
    if not isinstance(value, tuple) or len(value) != 2:
        raise TypeError(f"{name}: expected Label(sender, number), got {value!r}")
    sender, number = value
    return Label(_checks.order(f"{name}.sender", sender), _checks.order(f"{name}.number", number))


def _vectors(name: str, value) -> list[np.ndarray]:
    """Vectors of shape (d,)."""
    items = enumerate(_checks.iterable(name, value))
    return [_checks.labels(f"{name}[{i}]", item) for i, item in items]


def _whole(name: str, value) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"{name}: expected bytes, got {type(value).__name__}")
    return value


@checked(x=_checks.labels, label=_label)
def encode_exact(x: Float[ArrayLike, " d"], *, label: Label) -> bytes:
    """Encode a vector with 64 bits a coordinate: 5 + 8 d bytes.

    Args:
      x: what is sent, shape (d,).
      label: which message it is.
    """
    return _codec.encode_exact(x, label)


@checked(
    x=_checks.labels,
    epsilon=_checks.positive_number,
    bits=_bits,
    label=_label,
    after=_checks.order,
)
def encode_lattice(
    x: Float[ArrayLike, " d"], *, epsilon: float, bits: int, label: Label, after: int = 0
) -> bytes:
    """Encode the nearest point of the lattice s Z^d, its coordinates modulo 2^b.

    s is the largest power of two with s √d / 2 ≤ ε, so that the point is at most ε away from x, in
    the Euclidean norm. 13 bytes and (b - after) d bits.

    Args:
      x: what is sent, shape (d,).
      epsilon: ε.
      bits: b, from 1 to 54; `lattice_bits` tells how many a given reference needs.
      label: which message it is.
      after: for a receiver who has the lowest bits already, from `OutOfRange`: how many; only the
        others are sent.

    Raises:
      ValueError: ε so fine that the coordinates of x have more than 53 bits; after >= bits.
    """
    if after >= bits:
        raise ValueError(f"after: expected fewer bits than bits = {bits}, got {after}")
    exponent = _codec.lattice_exponent(epsilon, len(x))
    coordinates = _codec.lattice_coordinates(x, exponent)
    return _codec.encode_lattice(coordinates, exponent, bits, label, after)


@checked(
    x=_checks.labels,
    bits=_bits,
    rng=_checks.instance_of(np.random.Generator),
    label=_label,
)
def encode_qsgd(
    x: Float[ArrayLike, " d"], *, bits: int, rng: np.random.Generator, label: Label
) -> bytes:
    """Encode ‖x‖ and levels l_i, |l_i| ≤ k = 2^(b-1) - 1, with E l_i = k x_i / ‖x‖.

    l_i is one of the two integers next to k x_i / ‖x‖. The decoded vector ‖x‖ l / k is x on
    average, and E ‖error‖² ≤ min(d/k², √d/k) ‖x‖². 14 bytes and b d bits.

    Args:
      x: what is sent, shape (d,).
      bits: b, from 2 to 54.
      rng: rounds at random.
      label: which message it is.

    Raises:
      ValueError: bits outside of 2, …, 54.

    Source: Lemma 3.1 of arXiv:1610.02132, as we recall it; a level has a fixed number of bits here,
      where they use a variable one.
    """
    _bits("bits", bits, at_least=2)
    return _codec.encode_qsgd(x, bits, rng, label)


@checked(x=_checks.labels, references=_vectors, epsilon=_checks.positive_number)
def lattice_bits(
    x: Float[ArrayLike, " d"], references: Iterable[ArrayLike], *, epsilon: float
) -> int:
    """The least b with which `encode_lattice` makes a message that each reference decodes.

    Args:
      x: what is sent, shape (d,).
      references: vectors of shape (d,); one message serves receivers with different references.
      epsilon: ε.

    Raises:
      ValueError: as `encode_lattice`; no reference, or one of another shape.
    """
    if not references or any(r.shape != x.shape for r in references):
        raise ValueError(
            f"references: expected at least one, of shape {x.shape}, "
            f"got {[r.shape for r in references]}"
        )
    exponent = _codec.lattice_exponent(epsilon, len(x))
    return _codec.lattice_bits(_codec.lattice_coordinates(x, exponent), references, exponent)


@checked(x=_checks.labels, epsilon=_checks.positive_number)
def lattice_point(x: Float[ArrayLike, " d"], *, epsilon: float) -> Float[np.ndarray, " d"]:
    """The point of the lattice that `encode_lattice` sends: at most ε away from x.

    Args:
      x: shape (d,).
      epsilon: ε.

    Returns: shape (d,).

    Raises:
      ValueError: as `encode_lattice`.
    """
    exponent = _codec.lattice_exponent(epsilon, len(x))
    return _codec.lattice_point(_codec.lattice_coordinates(x, exponent), exponent)


@checked(message=_whole, label=_label, reference=_checks.labels)
def decode(
    message: bytes,
    *,
    label: Label,
    reference: Float[ArrayLike, " d"],
    residues: Int[np.ndarray, " d"] | None = None,
) -> Float[np.ndarray, " d"]:
    """Decode a message of any kind.

    Args:
      message: the bytes.
      label: which message is expected.
      reference: for a lattice message the vector near to what was sent; for the others only its
        length counts.
      residues: for a message of further bits of a lattice point, what `OutOfRange` gave.

    Returns: shape (d,); of a lattice message exactly the lattice point.

    Raises:
      MessageError: the bytes are not those of that message: truncated, altered or out of order; or
        a vector of another length.
      OutOfRange: the reference is too far from the lattice point for the bits that were sent.
    """
    if residues is not None:
        _are_residues(residues, len(reference))
    return _codec.decode(message, label, reference, residues)


def _are_residues(residues, d: int) -> None:
    """Raise unless these are d integers."""
    kind = np.asarray(residues)
    if kind.shape != (d,) or not np.issubdtype(kind.dtype, np.integer):
        raise ValueError(
            f"residues: expected {d} integers, as `OutOfRange` has them, "
            f"got {kind.dtype} of shape {kind.shape}"
        )
