"""Codes as bytes: w bits each for 2^w levels; otherwise base K digits of 64-bit words."""

import numpy as np

_GROUP = 8
"""Codes whose bits fill whole bytes, whatever w."""


def digits_per_word(levels: int) -> int:
    """Codes of K levels in one 64-bit word."""
    digits = 1
    while levels ** (digits + 1) <= 2**64:
        digits += 1
    return digits


def packed_bytes(count: int, levels: int) -> int:
    """Length of `pack` of `count` codes."""
    if levels & (levels - 1) == 0:
        return -(-count * (levels.bit_length() - 1) // 8)
    return 8 * -(-count // digits_per_word(levels))


def whole_chunk(levels: int) -> int:
    """Codes that fill whole bytes, so that pieces of such lengths can be packed one after the other."""
    return _GROUP if levels & (levels - 1) == 0 else digits_per_word(levels)


def pack(codes: np.ndarray, levels: int) -> np.ndarray:
    """Bytes of a vector of codes below `levels`."""
    if levels & (levels - 1) == 0:
        width = levels.bit_length() - 1
        if width in (8, 16):
            return codes.astype(f"<u{width // 8}").view(np.uint8)
        if width in (2, 4):
            # The codes of a byte as one little-endian number, whose bits are then moved together.
            together = 8 // width
            whole = np.pad(codes.astype(np.uint8, copy=False), (0, -codes.size % together)).view(f"<u{together}")
            return sum((whole >> (k * (8 - width)) for k in range(1, together)), whole).astype(np.uint8)
        bits = (codes[:, None] >> np.arange(width, dtype=codes.dtype)) & 1
        return np.packbits(bits.astype(np.uint8).ravel(), bitorder="little")
    digits = digits_per_word(levels)
    padded = np.pad(codes, (0, -codes.size % digits)).reshape(-1, digits)
    word = np.zeros(padded.shape[0], np.uint64)
    for k in reversed(range(digits)):
        word = word * np.uint64(levels) + padded[:, k].astype(np.uint64)
    return word.astype("<u8").view(np.uint8)


def unpack(packed: np.ndarray, count: int, levels: int) -> np.ndarray:
    """The inverse of `pack`."""
    dtype = np.uint8 if levels <= 256 else np.uint16
    if levels & (levels - 1) == 0:
        width = levels.bit_length() - 1
        if width in (8, 16):
            return packed.view(f"<u{width // 8}")[:count].astype(dtype)
        if width in (2, 4):
            codes = (packed[:, None] >> np.arange(0, 8, width, dtype=np.uint8)) & np.uint8(levels - 1)
            return codes.ravel()[:count].astype(dtype)
        bits = np.unpackbits(packed, bitorder="little")[: count * width].reshape(count, width)
        return (bits.astype(dtype) << np.arange(width, dtype=dtype)).sum(1, dtype=dtype)
    word = packed.view("<u8").astype(np.uint64)
    digits = digits_per_word(levels)
    codes = np.empty((word.size, digits), dtype)
    for k in range(digits):
        word, codes[:, k] = word // np.uint64(levels), word % np.uint64(levels)
    return codes.ravel()[:count]
