"""Vectors on disk, found again by model, precision and text."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from gpu_select import jsonio
from gpu_select.errors import OutputError
from gpu_select.files import atomic_write

__all__ = ["EmbeddingCache"]

_log = logging.getLogger("gpu_select")

_KEY_BYTES = 32
_ROW_BITS = 32  # a place is a shard's number above a row's
_MAX_HEADER_BYTES = 2**16
_FLUSH_ROWS = 65_536
_MAX_RUNS = 8
_UNIT_TOLERANCE = 1e-3


class _DamagedShardError(Exception):
    """A file in the cache folder that is not a shard of this cache."""


class _Run:
    """Sorted keys of one or more shards: 32 bytes a vector for the key and 8 for the place."""

    def __init__(self, keys: NDArray[np.bytes_], places: NDArray[np.int64]) -> None:
        order = np.argsort(keys, kind="stable")
        self.keys = keys[order]
        self.places = places[order]

    def find(self, wanted: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """(N,) place of each key, -1 where it is not here."""
        if not len(self.keys):
            return np.full(len(wanted), -1)
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[at] == wanted, self.places[at], -1)

    def forget(self, shard: int) -> None:
        """Drop the keys of one shard."""
        keep = self.places >> _ROW_BITS != shard
        self.keys, self.places = self.keys[keep], self.places[keep]


class EmbeddingCache:
    """Unit vectors of texts, kept in a folder between runs.

    A vector's key is the sha256 over the encoder's fingerprint, the dtype of the computation and the text, so neither
    a changed model nor a new text can ever get an old vector. Shards are safetensors files (`keys` uint8 (n, 32),
    `vectors` float32 (n, dim)) that appear complete or not at all and are never changed, so several processes may share
    a folder; each sees what was there when it opened the cache and what it added itself. In memory are 40 bytes a
    vector; the vectors stay on disk until they are asked for. A damaged shard is reported once, and its texts count as
    not cached.

    Use it as a context manager, or call `flush` at the end.
    """

    def __init__(self, folder: str | Path, encoder_fingerprint: str, precision: str, dim: int) -> None:
        """Open or create the cache of one encoder and precision.

        Args:
            folder: the user's cache folder; shards lie in `embeddings/` below it.
            encoder_fingerprint: `Encoder.fingerprint`.
            precision: `Encoder.precision`, such as float32.
            dim: length of a vector.
        Raises:
            OutputError: the folder cannot be written.
        """
        self._identity = f"{encoder_fingerprint}\n{precision}\n".encode()
        self._dim = dim
        self._folder = Path(folder) / "embeddings" / f"{encoder_fingerprint[:16]}-{precision}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except OSError as error:
            raise OutputError(f"cannot write to the cache folder {self._folder}: {error.strerror or error}") from error
        self._shards: list[Path] = []
        self._pending: dict[bytes, NDArray[np.float32]] = {}
        self._runs: list[_Run] = []
        for path in sorted(self._folder.glob("*.safetensors")):
            self._add_shard(path)
        self._merge_runs()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.flush()

    def get(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Look texts up.

        Args:
            texts: N texts.
        Returns:
            (N, dim) vectors, zero where there is none, and (N,) whether there is one.
        """
        vectors = np.zeros((len(texts), self._dim), dtype=np.float32)
        keys = self._keys(texts)
        places = np.full(len(texts), -1)
        for run in self._runs:
            missing = np.flatnonzero(places < 0)
            places[missing] = run.find(keys[missing])
        found = places >= 0
        shards, rows = places >> _ROW_BITS, places & (1 << _ROW_BITS) - 1
        for shard in np.unique(shards[found]).tolist():
            here = np.flatnonzero(found & (shards == shard))
            try:
                vectors[here] = self._read_rows(shard, rows[here])
            except (_DamagedShardError, OSError) as problem:
                self._report(shard, problem)
                for run in self._runs:
                    run.forget(shard)
                return self.get(texts)  # another shard may have what this one should have had
        if self._pending:
            for row in np.flatnonzero(~found).tolist():
                vector = self._pending.get(keys[row].ljust(_KEY_BYTES, b"\0"))
                if vector is not None:
                    vectors[row] = vector
                    found[row] = True
        return vectors, found

    def put(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Add vectors; they reach the disk at the next flush, at the latest after 65,536 of them.

        Args:
            texts: N texts.
            vectors: (N, dim) float32 of L2 norm 1.
        Raises:
            OutputError: a shard cannot be written.
        """
        for key, vector in zip(self._keys(texts), np.array(vectors, dtype=np.float32), strict=True):
            self._pending[key.ljust(_KEY_BYTES, b"\0")] = vector
        if len(self._pending) >= _FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last flush as one new shard.

        Raises:
            OutputError: it cannot be written.
        """
        if not self._pending:
            return
        keys = b"".join(self._pending)
        tensors: dict[str, NDArray[Any]] = {
            "keys": np.frombuffer(keys, dtype=np.uint8).reshape(-1, _KEY_BYTES),
            "vectors": np.stack(list(self._pending.values())),
        }
        path = self._folder / f"{hashlib.sha256(keys).hexdigest()[:32]}.safetensors"
        with atomic_write(path) as stream:
            stream.write(save(tensors))
        self._pending = {}
        self._add_shard(path)
        if len(self._runs) > _MAX_RUNS:
            self._merge_runs()

    def _keys(self, texts: Sequence[str]) -> NDArray[np.bytes_]:
        start = hashlib.sha256(self._identity)
        digests = []
        for text in texts:
            digest = start.copy()
            digest.update(text.encode("utf-8", "surrogatepass"))
            digests.append(digest.digest())
        return np.array(digests, dtype=f"S{_KEY_BYTES}")

    def _add_shard(self, path: Path) -> None:
        shard = len(self._shards)
        self._shards.append(path)
        try:
            n, keys_at, _ = self._layout(path)
            keys = np.fromfile(path, dtype=f"S{_KEY_BYTES}", count=n, offset=keys_at)
            self._runs.append(_Run(keys, (shard << _ROW_BITS) + np.arange(n)))
        except (_DamagedShardError, OSError) as problem:
            self._report(shard, problem)

    def _merge_runs(self) -> None:
        if self._runs:
            keys = np.concatenate([run.keys for run in self._runs])
            self._runs = [_Run(keys, np.concatenate([run.places for run in self._runs]))]

    def _read_rows(self, shard: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        path = self._shards[shard]
        n, _, vectors_at = self._layout(path)
        if int(rows.max()) >= n:
            raise _DamagedShardError("fewer vectors than when the cache was opened")
        stored = np.memmap(path, dtype="<f4", mode="r", offset=vectors_at, shape=(n, self._dim))
        vectors = np.array(stored[rows])
        if not (np.abs(np.square(vectors, dtype=np.float64).sum(axis=1) - 1) <= _UNIT_TOLERANCE).all():
            raise _DamagedShardError("a vector is not of unit length")
        return vectors

    def _layout(self, path: Path) -> tuple[int, int, int]:
        """(vectors, offset of the keys, offset of the vectors) of a shard, from its checked safetensors header."""
        with open(path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = stream.read(min(length, _MAX_HEADER_BYTES))
            size = stream.seek(0, 2)
        try:
            tensors = jsonio.loads(header)
            n = tensors["keys"]["shape"][0]
        except (ValueError, TypeError, LookupError) as error:
            raise _DamagedShardError("no safetensors header with keys and vectors") from error
        keys_size, vectors_size = _KEY_BYTES, self._dim * 4
        if type(n) is int and n > 0 and size == 8 + length + n * (keys_size + vectors_size):
            for keys_at, vectors_at in ((n * vectors_size, 0), (0, n * keys_size)):
                expected = {
                    "keys": {
                        "dtype": "U8",
                        "shape": [n, _KEY_BYTES],
                        "data_offsets": [keys_at, keys_at + n * keys_size],
                    },
                    "vectors": {
                        "dtype": "F32",
                        "shape": [n, self._dim],
                        "data_offsets": [vectors_at, vectors_at + n * vectors_size],
                    },
                }
                if tensors == expected:
                    return n, 8 + length + keys_at, 8 + length + vectors_at
        raise _DamagedShardError(f"expected n keys of 32 bytes and n vectors of {self._dim} float32 in the file's size")

    def _report(self, shard: int, problem: Exception) -> None:
        _log.warning("%s: damaged cache file, its vectors are computed anew (%s)", self._shards[shard], problem)
