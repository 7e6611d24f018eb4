"""Byte streams by file name (plain, .gz, .zst, `-`) and writing without half-written files."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from gpu_select.errors import GpuSelectError, InputError, MissingDependencyError, OutputError

__all__ = ["STDIO", "atomic_write", "open_read", "strip_compression"]

STDIO = "-"
"""Stands for standard input or output."""

_COMPRESSED = (".gz", ".zst")


def strip_compression(name: str) -> tuple[str, str]:
    """Split `log.csv.gz` into (`log.csv`, `.gz`); the second part is empty for a plain name."""
    for ending in _COMPRESSED:
        if name.lower().endswith(ending):
            return name[: -len(ending)], ending
    return name, ""


@contextlib.contextmanager
def open_read(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file (or `-`) for buffered reading, decompressed by its name's ending.

    Raises:
        InputError: missing, a folder, not readable, or (while reading) damaged compressed data.
        MissingDependencyError: a .zst file without the package zstandard.
    """
    name = str(path)
    if name == STDIO:
        yield sys.stdin.buffer
        return
    ending = strip_compression(name)[1]
    try:
        raw: IO[bytes] = open(name, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or error}") from error
    with raw:
        try:
            yield _decompressed(raw, ending)
        except GpuSelectError:
            raise
        except (EOFError, OSError) as error:
            raise InputError(f"cannot read {name}: {_damage(error, ending)}") from error
        except Exception as error:
            # zlib.error and zstandard.ZstdError are not OSErrors, and zstandard may not be importable here
            if type(error).__module__.split(".")[0] in ("zlib", "zstandard"):
                raise InputError(f"cannot read {name}: {_damage(error, ending)}") from error
            raise


def _damage(error: BaseException, ending: str) -> str:
    if isinstance(error, OSError) and error.errno:
        return error.strerror or str(error)
    return f"damaged {ending} data ({error})" if ending else str(error)


def _decompressed(raw: IO[bytes], ending: str) -> IO[bytes]:
    if ending == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw, mode="rb"))
    if ending == ".zst":
        reader = _zstandard().ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        return io.BufferedReader(reader)
    return raw


def _compressed(raw: IO[bytes], ending: str) -> IO[bytes]:
    if ending == ".gz":
        # no name and no time in the header: the same rows give the same bytes
        return cast(IO[bytes], gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=6))
    if ending == ".zst":
        return cast(IO[bytes], _zstandard().ZstdCompressor(level=3).stream_writer(raw, closefd=False))
    return raw


def _zstandard():  # type: ignore[no-untyped-def]
    try:
        import zstandard
    except ImportError as error:
        raise MissingDependencyError("zstandard", "a .zst file", "'gpu-select[zst]'") from error
    return zstandard


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[bytes]]:
    """Write a file that appears under its name only when it is complete; compressed by its name's ending.

    A temporary file in the same folder is written, fsynced and renamed; on any error it is removed and what stood
    under the name before stays. `-` writes straight to standard output. Missing folders are created.

    Raises:
        OutputError: the folder or file cannot be written.
    """
    name = str(path)
    if name == STDIO:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = Path(name)
    if target.is_dir():
        raise OutputError(f"cannot write {name}: it is a folder")
    if target.exists() and not target.is_file():  # a device or a pipe: /dev/null, /dev/stdout
        with open(target, "wb") as stream:
            yield stream
        return
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        raise OutputError(f"cannot write {name}: {error.strerror or error}") from error
    try:
        with os.fdopen(descriptor, "wb") as raw:
            stream = _compressed(raw, strip_compression(name)[1])
            yield stream
            if stream is not raw:
                stream.close()
            raw.flush()
            os.fsync(raw.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and not isinstance(error, GpuSelectError):
            raise OutputError(f"cannot write {name}: {error.strerror or error}") from error
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
