"""The output of a benchmark: a record a line, appended as calls end, and repaired after a crash.

A record is in the file as soon as `append` returns: it has been handed to the system by one write, so that no end of
this process can take it back. `sync` makes sure of a power cut, too.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from gpu_select import jsonio
from gpu_select.errors import DataError, OutputError, brief
from gpu_select.files import STDIO, strip_compression, writing
from gpu_select.lines import MAX_LINE_BYTES

__all__ = ["AnswerFile", "Span"]

_BLOCK_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"


class Span(NamedTuple):
    """Where a line stands."""

    offset: int
    length: int
    """With its line end."""


class AnswerFile:
    """A file of records that this process alone writes.

    Args:
        path: created where missing, with its folder. `records` has to be read before anything is appended.

    Attributes:
        warnings: what was noticed while reading.

    Raises:
        OutputError: it cannot be written, is no plain file, or another process is writing it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        if self.path == STDIO or strip_compression(self.path)[1]:
            raise OutputError(f"cannot write {path}: expected the name of a plain .jsonl file, as records are appended")
        self.warnings: list[str] = []
        self._replaced: set[Span] = set()
        self._is_synced = True
        with writing(self.path):
            self._target = Path(os.path.realpath(self.path))
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = _open_locked(self._target, self.path)
        try:
            with writing(self.path):
                _temporary(self._target).unlink(missing_ok=True)
                self._size = os.fstat(self._descriptor).st_size
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with contextlib.suppress(OutputError) if error is not None else contextlib.nullcontext():
                self.sync()
        finally:
            os.close(self._descriptor)

    def records(self) -> Iterator[tuple[int, Span, dict[str, Any]]]:
        """Line number, place and record of every line that is not blank. A half-written last line is cut off.

        Raises:
            DataError: a line is no record. None is left out silently: it may be an answer that was paid for.
            OutputError: the last line cannot be cut off.
        """
        offset = number = 0
        with open(self._target, "rb") as stream:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if not line.endswith(b"\n"):
                    line = self._mended(line)
                span = Span(offset, len(line))
                offset += len(line)
                if line.strip():
                    yield number, span, self._record(number, line.removeprefix(_BOM) if number == 1 else line)

    def read(self, span: Span) -> dict[str, Any]:
        """The record at a place."""
        line = os.pread(self._descriptor, span.length, span.offset)
        record: dict[str, Any] = jsonio.loads(line.removeprefix(_BOM) if span.offset == 0 else line)
        return record

    def append(self, record: Mapping[str, Any], *, replaces: Span | None = None) -> Span:
        """Write a record.

        Args:
            record: plain values.
            replaces: the line whose place it takes; that one stays until `compact`.

        Raises:
            OutputError: it cannot be written; nothing of it stays then.
        """
        data = jsonio.dumps(record) + b"\n"
        span = Span(self._size, len(data))
        try:
            with writing(self.path):
                _write(self._descriptor, data)
        except OutputError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)
        self._is_synced = False
        if replaces is not None:
            self.drop(replaces)
        return span

    def drop(self, span: Span) -> None:
        """Say that a line is not needed any more; `compact` removes it."""
        self._replaced.add(span)

    def sync(self) -> None:
        """Return once everything is on the device.

        Raises:
            OutputError: the system says that something could not be written.
        """
        if not self._is_synced:
            self._is_synced = True
            with writing(self.path):
                os.fsync(self._descriptor)

    def compact(self) -> None:
        """Remove the lines that others have taken the place of, by a new file under the same name; others stay as
        they are, byte for byte.

        Raises:
            OutputError: there is no room for it; the file is as before.
        """
        if not self._replaced:
            return
        temporary = _temporary(self._target)
        new = None
        try:
            with writing(self.path):
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND
                new = os.open(temporary, flags, stat.S_IMODE(os.fstat(self._descriptor).st_mode))
                _lock(new, self.path)
                size = self._copy_kept(new)
                os.fsync(new)
                os.replace(temporary, self._target)
        except BaseException:
            if new is not None:
                os.close(new)
                with contextlib.suppress(OSError):
                    temporary.unlink()
            raise
        os.close(self._descriptor)
        self._descriptor, self._size, self._is_synced = new, size, True
        self._replaced.clear()
        _sync_folder(self._target.parent)

    def _copy_kept(self, new: int) -> int:
        size = at = 0
        for span in (*sorted(self._replaced), Span(self._size, 0)):
            while at < span.offset:
                block = os.pread(self._descriptor, min(_BLOCK_BYTES, span.offset - at), at)
                _write(new, block)
                at += len(block)
                size += len(block)
            at = span.offset + span.length
        return size

    def _mended(self, last: bytes) -> bytes:
        """The last line with its end, or nothing where only a part of it was written.

        Anything else stays as it is, for `_record` to refuse: it may be a file of another kind, given by mistake.
        """
        try:
            is_whole = isinstance(jsonio.loads(last), dict)
        except ValueError:
            is_whole = False
        with writing(self.path):
            if is_whole:
                _write(self._descriptor, b"\n")
                self._size += 1
                return last + b"\n"
            # a power cut leaves zeros where blocks were not written
            if len(last) <= MAX_LINE_BYTES and last[:1] in (b"{", b"\0"):
                self._size -= len(last)
                os.ftruncate(self._descriptor, self._size)
                self.warnings.append(
                    f"{self.path}: the last line was half-written ({len(last)} bytes) and is cut off; "
                    "its call is made again"
                )
                return b""
        return last

    def _record(self, number: int, line: bytes) -> dict[str, Any]:
        where = f"{self.path}: line {number}"
        cure = "mend or remove the line, or give another --output"
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{where}: expected at most {MAX_LINE_BYTES >> 20} MiB, got more; {cure}")
        try:
            record = jsonio.loads(line)
        except ValueError as error:
            raise DataError(
                f"{where}: expected a benchmark record, got no JSON ({brief(str(error))}); {cure}"
            ) from error
        for name in ("query", "model_name"):
            value = record.get(name) if isinstance(record, dict) else None
            if not isinstance(value, str) or not value.strip():
                raise DataError(
                    f"{where}: expected a benchmark record with a text as {name}, got {brief(value)}; {cure}"
                )
        return dict(record)


def _temporary(target: Path) -> Path:
    """Always the same name, so that a crash leaves one at most; who holds the lock may remove it."""
    return target.with_name(f".{target.name}.compacting")


def _open_locked(target: Path, name: str) -> int:
    """A descriptor of the file that has the name, locked."""
    while True:
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OutputError(f"cannot write {name}: expected a plain file, as records are appended")
            _lock(descriptor, name)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(found, os.stat(target)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was compacted meanwhile: another file has the name now


def _lock(descriptor: int, name: str) -> None:
    try:
        import fcntl
    except ImportError as error:
        raise OutputError(f"cannot write {name}: this system has no file locks as Linux and macOS have") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"cannot write {name}: another benchmark is writing it; let it end, or give another --output"
        ) from error


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _sync_folder(folder: Path) -> None:
    """Make a new name last; file systems that cannot do without it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
