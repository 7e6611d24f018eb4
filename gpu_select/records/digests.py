"""Digests of queries, by which a file can tell what it was trained on without carrying the texts."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpu_select.errors import brief

__all__ = ["pack_digests", "query_digests", "unpack_digests"]

_DIGEST_BYTES = 8


def query_digests(queries: Sequence[str]) -> NDArray[np.uint64]:
    """(Q,) a digest of each text, alike for texts that differ only in white space and letter case.

    Of two million different texts, two have the same digest with a chance of one in ten million.
    """
    digests = (
        hashlib.blake2b(" ".join(text.split()).casefold().encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES)
        for text in queries
    )
    return np.frombuffer(b"".join(digest.digest() for digest in digests), dtype="<u8").astype(np.uint64)


def pack_digests(digests_Q: NDArray[np.uint64]) -> str:
    """The different digests, sorted, as base64 for a file."""
    return base64.b64encode(np.unique(digests_Q).astype("<u8").tobytes()).decode("ascii")


def unpack_digests(text: object) -> NDArray[np.uint64]:
    """The digests behind what `pack_digests` wrote.

    Raises:
        ValueError: something else.
    """
    if not isinstance(text, str):
        raise ValueError(f"expected a text, got {brief(text)}")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"expected base64, got {brief(text)}") from error
    if len(data) % _DIGEST_BYTES:
        raise ValueError(f"expected base64 of digests of {_DIGEST_BYTES} bytes, got {len(data)} bytes")
    return np.frombuffer(data, dtype="<u8").astype(np.uint64)
