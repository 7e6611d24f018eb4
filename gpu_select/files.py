"""Byte streams by file name (plain, .gz, .zst, `-`) and writing without half-written files."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import secrets
import select
import stat
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from gpu_select.errors import InputError, MissingDependencyError, OutputError

__all__ = [
    "STDIO",
    "TEMPORARY",
    "atomic_path",
    "atomic_write",
    "check_target",
    "check_writable",
    "open_read",
    "remove_file",
    "skip",
    "strip_compression",
    "writing",
]

STDIO = "-"
"""Stands for standard input or output."""

TEMPORARY = ".gpu_select.*.tmp"
"""What files are called, as a pattern, that are still being written, or were when their process was killed."""

_COMPRESSED = (".gz", ".zst")
_READ_BUFFER_BYTES = 1 << 18
_STOP_S = 0.1  # so soon after a stop, waiting ends
_PIPE_BYTES = getattr(select, "PIPE_BUF", 512)  # a pipe that is ready takes so many at once
# A frame of equal bytes unpacks to 128 KiB for every 4 bytes read: this keeps one step under 32 MiB.
_ZST_STEP_BYTES = 1 << 10

_T = TypeVar("_T")


def strip_compression(name: str) -> tuple[str, str]:
    """Split `log.csv.gz` into (`log.csv`, `.gz`); the second part is empty for a plain name."""
    for ending in _COMPRESSED:
        if name.lower().endswith(ending):
            return name[: -len(ending)], ending
    return name, ""


@contextlib.contextmanager
def open_read(path: str | Path, *, offset: int = 0, stop: threading.Event | None = None) -> Iterator[IO[bytes]]:
    """Open a file (or `-`) for buffered reading, decompressed by its name's ending.

    Args:
        path: the file's name.
        offset: unpacked bytes to begin after; a plain file is not read up to there, a compressed one has to be.
        stop: once set, no more is read: it ends a wait in another thread for bytes that may never come.
    Raises:
        InputError: missing, a folder, not readable, or (while reading) damaged or cut off compressed data.
        MissingDependencyError: a .zst file without the package zstandard.
    """
    name = str(path)
    if name == STDIO:
        if sys.stdin is None:
            raise InputError("cannot read standard input: it is closed")
        stdin: Any = sys.stdin.buffer
        if stop is not None:
            stdin = _Stoppable(getattr(stdin, "raw", stdin), stop)  # a buffer would wait until it is full
        yield io.BufferedReader(_Source(stdin, "standard input", ""), _READ_BUFFER_BYTES)
        return
    ending = strip_compression(name)[1]
    try:
        raw = open(name, "rb", buffering=0)  # noqa: SIM115 - closed below
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"cannot read {name}: {_reason(error)}") from error
    with raw:
        if not ending and offset:
            raw.seek(offset)
        bytes_in = raw if stop is None else cast(IO[bytes], _Stoppable(raw, stop))
        stream = io.BufferedReader(_Source(_decompressed(bytes_in, ending), name, ending), _READ_BUFFER_BYTES)
        if ending:
            skip(stream, offset)
        yield stream


def skip(stream: IO[bytes], n_bytes: int) -> None:
    """Read that many bytes, or up to the end, and forget them."""
    while n_bytes and (block := stream.read(min(n_bytes, _READ_BUFFER_BYTES))):
        n_bytes -= len(block)


class _Stoppable(io.RawIOBase):
    """Reads and writes a pipe or a terminal only once that takes no waiting, so that `stop` can end the wait."""

    def __init__(self, raw: Any, stop: threading.Event) -> None:
        self._raw = raw
        self._stop = stop

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return cast(int, self._raw.fileno())

    def readinto(self, buffer: Any) -> int:
        self._wait(to_write=False)
        return cast(int, self._raw.readinto(buffer))

    def write(self, data: Any) -> int:
        """All of it, unlike other raw streams."""
        left = memoryview(data).cast("B")
        n_bytes = len(left)
        while left:
            self._wait(to_write=True)
            left = left[self._raw.write(left[:_PIPE_BYTES]) :]
        return n_bytes

    def _wait(self, *, to_write: bool) -> None:
        while not self._stop.is_set():
            try:
                waiting = [self.fileno()]
                if any(select.select([] if to_write else waiting, waiting if to_write else [], [], _STOP_S)):
                    return
            except (OSError, ValueError):  # nothing that can be waited for
                return
        raise OSError("it has been stopped")


class _Source(io.RawIOBase):
    """Turns what goes wrong while reading into an `InputError`, there and nowhere else."""

    def __init__(self, stream: Any, name: str, ending: str) -> None:
        self._stream = stream
        self._name = name
        self._ending = ending

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        if self._ending:
            raise io.UnsupportedOperation("the file's own bytes are not those that are read here")
        return cast(int, self._stream.fileno())

    def readinto(self, buffer: Any) -> int:
        return self._guarded(lambda: cast(int, self._stream.readinto(buffer)))

    def readall(self) -> bytes:
        return self._guarded(lambda: cast(bytes, self._stream.read()))

    def _guarded(self, read: Callable[[], _T]) -> _T:
        try:
            return read()
        except (OSError, EOFError, zlib.error) as error:
            if self._ending and not getattr(error, "errno", None):
                raise InputError(f"cannot read {self._name}: damaged {self._ending} data ({error})") from error
            raise InputError(f"cannot read {self._name}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _decompressed(raw: IO[bytes], ending: str) -> Any:
    if ending == ".gz":
        return gzip.GzipFile(fileobj=raw, mode="rb")
    if ending == ".zst":
        return io.BufferedReader(_ZstSource(raw), _READ_BUFFER_BYTES)
    return raw


class _ZstSource(io.RawIOBase):
    """Decompresses .zst frames. zstandard's own stream reader takes a cut off file for a complete one."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = io.BufferedReader(cast(io.RawIOBase, raw), _READ_BUFFER_BYTES)
        self._zstandard = _zstandard()
        self._decompressor = self._zstandard.ZstdDecompressor()
        self._frame: Any = None  # None between frames
        self._packed = b""
        self._unpacked = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._unpacked:
            self._packed = self._packed or self._raw.read(_ZST_STEP_BYTES)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("the file ends within a frame")
                return 0
            self._unpack()
        n = min(len(buffer), len(self._unpacked))
        buffer[:n] = self._unpacked[:n]
        self._unpacked = self._unpacked[n:]
        return n

    def _unpack(self) -> None:
        self._frame = self._frame or self._decompressor.decompressobj()
        try:
            self._unpacked = memoryview(self._frame.decompress(self._packed))
        except self._zstandard.ZstdError as error:
            raise EOFError(str(error)) from error
        self._packed = b""
        if self._frame.eof:
            self._packed = self._frame.unused_data
            self._frame = None


def _compressed(raw: IO[bytes], ending: str) -> IO[bytes]:
    if ending == ".gz":
        # no name and no time in the header: the same rows give the same bytes
        return cast(IO[bytes], gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=6))
    if ending == ".zst":
        return cast(
            IO[bytes], _zstandard().ZstdCompressor(level=3, write_checksum=True).stream_writer(raw, closefd=False)
        )
    return raw


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise MissingDependencyError("zstandard", "a .zst file", "'gpu-select[zst]'") from error
    return zstandard


@contextlib.contextmanager
def atomic_write(path: str | Path, *, stop: threading.Event | None = None) -> Iterator[IO[bytes]]:
    """Write a file that appears under its name only when it is complete; compressed by its name's ending.

    A temporary file in the same folder is written, fsynced and renamed; on any error it is removed and what stood
    under the name before stays. A link is followed, an existing file keeps its permissions, missing folders are
    created. `-`, a pipe or a device is written to directly.

    Args:
        path: the file's name.
        stop: once set, standard output is written no more: it ends a wait in another thread for a reader.
    Raises:
        OutputError: the folder or file cannot be written.
        MissingDependencyError: a .zst file without the package zstandard.
    """
    name = str(path)
    if name == STDIO:
        with _standard_output(stop) as stream:
            yield stream
        return
    temporary: Path | None = None
    try:
        with writing(name):
            target = _target(name)
            if _is_direct(target):
                raw: IO[bytes] = open(target, "wb")  # noqa: SIM115 - closed below
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                hidden = target.parent / _temporary_name()
                raw = _create(hidden, target)
                temporary = hidden
        with contextlib.ExitStack() as closing:
            closing.callback(_close_quietly, raw)
            packed = _compressed(raw, strip_compression(name)[1])
            closing.callback(_close_quietly, packed)
            yield cast(IO[bytes], _Sink(packed, name))
            with writing(name):
                if packed is not raw:
                    packed.close()
                raw.flush()
                if temporary is not None:
                    os.fsync(raw.fileno())
        if temporary is not None:
            with writing(name):
                os.replace(temporary, target)
    except BaseException:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """As `atomic_write`, for a library that writes to a name: what it writes under the given one appears when complete.

    Args:
        path: the file's name, which the temporary one shares the ending with; it is never compressed.
    Raises:
        OutputError: the folder or file cannot be written.
    """
    name = str(path)
    with writing(name):
        target = _target(name)
        target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".gpu_select.{secrets.token_hex(8)}.tmp{target.suffix}"
    try:
        try:
            yield temporary
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(f"cannot write {name}: {_reason(error)}") from error
        with writing(name):
            with open(temporary, "rb+") as stream:
                os.fsync(stream.fileno())
            with contextlib.suppress(OSError):  # no such file yet, or a file system without permissions
                os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def check_writable(folder: str | Path) -> None:
    """Make sure that files can be written into a folder, before hours are spent on what goes there.

    Raises:
        OutputError: they cannot.
    """
    with writing(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        probe = Path(folder) / _temporary_name()
        probe.touch(exist_ok=False)
        probe.unlink()


def check_target(path: str | Path) -> None:
    """Make sure that a file can be written under a name, before hours are spent on what goes there.

    Raises:
        OutputError: it cannot.
    """
    if str(path) == STDIO:
        return
    with writing(path):
        target = _target(path)
        is_direct = _is_direct(target)
    if not is_direct:
        check_writable(target.parent if os.path.islink(path) else Path(path).parent)


def _target(path: str | Path) -> Path:
    """What a name leads to, which is no folder."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder")
    return target


def _is_direct(target: Path) -> bool:
    """Whether it is written to as it stands: /dev/null, a named pipe."""
    return target.exists() and not target.is_file()


def remove_file(path: str | Path) -> bool:
    """Remove a file; whether there was one.

    Raises:
        OutputError: it cannot be removed.
    """
    try:
        Path(path).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise OutputError(f"cannot remove {path}: {_reason(error)}") from error
    return True


def _temporary_name() -> str:
    return TEMPORARY.replace("*", secrets.token_hex(8))


def _create(temporary: Path, target: Path) -> IO[bytes]:
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    with contextlib.suppress(OSError):  # no such file yet, or a file system without permissions
        os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
    return os.fdopen(descriptor, "wb")


def _close_quietly(stream: IO[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError):  # after an error, what is still buffered may fail again
        stream.close()


@contextlib.contextmanager
def _standard_output(stop: threading.Event | None) -> Iterator[IO[bytes]]:
    if sys.stdout is None:
        raise OutputError("cannot write standard output: it is closed")
    stream = sys.stdout.buffer
    try:
        yield cast(IO[bytes], _Sink(stream if stop is None else _stoppable_output(stream, stop), "standard output"))
        with writing("standard output"):
            stream.flush()
    except OutputError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            # the reader has gone: without this, Python's flush at exit would complain a second time
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise


def _stoppable_output(stream: Any, stop: threading.Event) -> IO[bytes]:
    with contextlib.suppress(OSError, ValueError):  # no descriptor
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            stream.flush()
            stream = _Stoppable(getattr(stream, "raw", stream), stop)
    return cast(IO[bytes], stream)


@contextlib.contextmanager
def writing(name: object) -> Iterator[None]:
    """Turn what the system refuses within the block into an `OutputError` that names what was to be written."""
    try:
        yield
    except OutputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise OutputError(f"cannot write {name}: {_reason(error)}") from error


class _Sink(io.BufferedIOBase):
    """Turns what goes wrong while writing into an `OutputError`, there and nowhere else; counts its bytes."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        self._name = name
        self._n_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        n_bytes = memoryview(data).nbytes
        try:
            self._stream.write(data)
        except OSError as error:
            raise OutputError(f"cannot write {self._name}: {_reason(error)}") from error
        self._n_bytes += n_bytes
        return n_bytes

    def tell(self) -> int:
        return self._n_bytes
