"""The bytes of a message. Arguments were checked at the door of `messages`; what arrives is not.

Every message is a checksum of the rest and of its label, a kind, a description, and the payload.
"""

import math
import struct
import zlib
from typing import NamedTuple

import numpy as np

from ntk_utils._scale import polar

MOST_BITS = 54
"""Of a coordinate: integers of 53 bits and a sign are what doubles can tell apart."""

_CHECKSUM = struct.Struct(">I")
_EXACT, _LATTICE, _QSGD = 0, 1, 2  # kinds
_DESCRIPTIONS = {
    _EXACT: struct.Struct(">B"),
    _LATTICE: struct.Struct(">BhBBI"),  # log2(s), first and last bit, checksum of the coordinates
    _QSGD: struct.Struct(">BBd"),  # bits, norm
}


class MessageError(ValueError):
    """Bytes that are not the expected message: truncated, altered, or out of order."""


class OutOfRange(ValueError):
    """A lattice message that its reference does not decode: it is too far from what was sent.

    `residues` are the coordinates modulo 2^b so far. With them, a message of further bits of the
    same coordinates can be decoded.
    """

    def __init__(self, message: str, residues: np.ndarray):
        super().__init__(message)
        self.residues = residues


class Label(NamedTuple):
    """Which message it is. It does not travel: the receiver knows what it waits for."""

    sender: int
    """the number of the node"""
    number: int
    """of the exchange; further bits of a message have its number"""


def lattice_exponent(epsilon: float, d: int) -> int:
    """log2(s) for the largest power of two with s √d / 2 ≤ ε."""
    mantissa, exponent = math.frexp(epsilon)  # apart, since ε/√d may be no number
    return max(exponent + math.frexp(2 * mantissa / math.sqrt(d))[1] - 1, -1074)


def lattice_coordinates(x, exponent: int) -> np.ndarray:
    """The integer coordinates of the nearest point of the lattice with s = 2^exponent."""
    with np.errstate(over="ignore"):
        scaled = np.rint(np.ldexp(x, -exponent))
    if np.abs(scaled).max() >= 2.0 ** (MOST_BITS - 1):
        raise ValueError(
            f"epsilon: expected an error that doubles can express, got lattice steps of "
            f"{math.ldexp(1, exponent):.3g} for entries up to {np.abs(x).max():.3g}"
        )
    return scaled.astype(np.int64)


def lattice_bits(coordinates, references, exponent: int) -> int:
    """The least number of bits with which each reference decodes the coordinates."""
    away = [coordinates - lattice_coordinates(reference, exponent) for reference in references]
    # b bits hold the numbers from -2^(b-1) to 2^(b-1) - 1
    least, most = min(a.min() for a in away), max(a.max() for a in away)
    return 1 + max(int(most), -int(least) - 1, 0).bit_length()


def lattice_point(coordinates, exponent: int) -> np.ndarray:
    """The vector with these coordinates."""
    return np.ldexp(coordinates.astype(float), exponent)


def encode_exact(x, label: Label) -> bytes:
    """Doubles as they are."""
    return _sealed(_EXACT, (), x.astype(">f8").tobytes(), label)


def encode_lattice(coordinates, exponent: int, bits: int, label: Label, after: int = 0) -> bytes:
    """The bits of each coordinate from number `after` on, the lowest is 0, up to `bits`."""
    description = exponent, after, bits, _fingerprint(coordinates)
    return _sealed(_LATTICE, description, _packed(coordinates >> after, bits - after), label)


def encode_qsgd(x, bits: int, rng: np.random.Generator, label: Label) -> bytes:
    """The norm, and levels that are rounded at random."""
    k, ((norm,), (u,)) = 2 ** (bits - 1) - 1, polar(x[None])
    # of many bits the sum itself is rounded, to k + 1 at most
    levels = np.minimum(np.floor(k * u + rng.random(len(x))), k).astype(np.int64)
    return _sealed(_QSGD, (bits, norm), _packed(levels, bits), label)


def decode(message: bytes, label: Label, reference, residues=None) -> np.ndarray:
    """What was sent; of a lattice message the lattice point."""
    kind, description, payload = _opened(message, label)
    if kind == _EXACT:
        if len(payload) != 8 * len(reference):
            raise MessageError(
                f"message: expected {len(reference)} coordinates, got {len(payload) // 8}"
            )
        return np.frombuffer(payload, ">f8").astype(float)
    if kind == _QSGD:
        bits, norm = description
        levels = _unpacked(payload, bits, len(reference))
        levels -= (levels >> (bits - 1)) << bits  # the highest bit is the sign
        return norm * (levels / (2 ** (bits - 1) - 1))
    exponent, after, bits, fingerprint = description
    if (residues is None) != (after == 0):
        raise MessageError(f"message: expected the residues modulo 2^{after} of what came before")
    further = _unpacked(payload, bits - after, len(reference)) << after
    residues = further if residues is None else residues + further
    coordinates = _nearest(residues, bits, reference, exponent)
    if coordinates is None or _fingerprint(coordinates) != fingerprint:
        raise OutOfRange(
            f"reference: expected one within 2^{bits - 1} × {math.ldexp(1, exponent):.3g} of what "
            f"node {label.sender} sent as message {label.number}, in each coordinate; it is "
            "farther away",
            residues,
        )
    return lattice_point(coordinates, exponent)


def _nearest(residues, bits: int, reference, exponent: int) -> np.ndarray | None:
    """The integers with these residues modulo 2^bits that are next to the reference."""
    try:
        near = lattice_coordinates(reference, exponent)
    except ValueError:  # far from everything that can be sent
        return None
    half = 1 << (bits - 1)
    return near + ((residues - near + half) & (2 * half - 1)) - half


def _fingerprint(coordinates) -> int:
    return zlib.crc32(coordinates.astype(">i8").tobytes())


def _packed(integers, bits: int) -> bytes:
    """The lowest bits of each integer, in a row."""
    planes = (integers[:, None] >> np.arange(bits)) & 1
    return np.packbits(planes.astype(np.uint8)).tobytes()


def _unpacked(payload: bytes, bits: int, d: int) -> np.ndarray:
    if len(payload) != math.ceil(bits * d / 8):
        raise MessageError(
            f"message: expected {math.ceil(bits * d / 8)} bytes, {d} coordinates of {bits} bits, "
            f"got {len(payload)}"
        )
    planes = np.unpackbits(np.frombuffer(payload, np.uint8), count=bits * d).reshape(d, bits)
    return planes @ (1 << np.arange(bits))


def _sealed(kind: int, description: tuple, payload: bytes, label: Label) -> bytes:
    content = _DESCRIPTIONS[kind].pack(kind, *description) + payload
    return _CHECKSUM.pack(_checksum(content, label)) + content


def _opened(message: bytes, label: Label) -> tuple[int, tuple, bytes]:
    content = message[_CHECKSUM.size :]
    if not content or message[: _CHECKSUM.size] != _CHECKSUM.pack(_checksum(content, label)):
        raise MessageError(
            f"message: expected message {label.number} of node {label.sender}, got {len(message)} "
            "bytes with another checksum: truncated, altered or out of order"
        )
    form = _DESCRIPTIONS[content[0]]
    kind, *description = form.unpack_from(content)
    return kind, tuple(description), content[form.size :]


def _checksum(content: bytes, label: Label) -> int:
    return zlib.crc32(content, zlib.crc32(struct.pack(">QQ", *label)))
