"""One file of a repository, byte by byte: goes on where an earlier try or run has stopped."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from gpu_select.download.connection import Answer, RefusedError, UnreachableError
from gpu_select.download.partial import PartialFile
from gpu_select.download.repository import RemoteFile, Repository
from gpu_select.errors import HubError

__all__ = ["WAITS_S", "fetch", "size_text"]

WAITS_S = (1.0, 3.0, 9.0)
"""Before each further try; new bytes give all of them back."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


def fetch(
    repository: Repository,
    file: RemoteFile,
    partial: PartialFile,
    *,
    max_bytes: int,
    progress: Callable[[int], object] = lambda n_bytes: None,
) -> None:
    """Complete a file's bytes.

    Args:
        repository: where the file is.
        file: one of its files.
        partial: open; keeps what has come, whatever happens.
        max_bytes: give up beyond so many.
        progress: called with how many bytes more there are; a negative number where some had to be dropped.

    Raises:
        HubError: it is larger than `max_bytes` or than its listing says, the hub refuses it, or the connection was
            lost again and again.
        OutputError: the bytes cannot be written.
    """
    if file.n_bytes is not None and file.n_bytes > max_bytes:
        raise HubError(
            f"{file.name}: expected at most {size_text(max_bytes)}, got {size_text(file.n_bytes)} in the listing of "
            f"{repository.repo_id}: no file of this kind is so large; get it by hand if it is what you want"
        )
    limit = max_bytes if file.n_bytes is None else file.n_bytes
    if partial.n_bytes > limit:
        partial.clear()
    progress(partial.n_bytes)
    n_lost = 0
    while file.n_bytes is None or partial.n_bytes < file.n_bytes:
        before = partial.n_bytes
        try:
            with repository.connection.get(repository.url(file.name), start=before) as answer:
                _receive(answer, file.name, partial, limit, progress)
            if file.n_bytes is None or partial.n_bytes == file.n_bytes:
                return
            reason = "the answer ended early"
        except RefusedError as refused:
            if refused.status == 416 and before:  # nothing lies beyond: these are not the file's bytes
                partial.clear()
                progress(-before)
                continue
            if not refused.is_temporary:
                raise repository.refusal(refused) from refused
            reason = f"{refused.host} answers {refused.status}"
        except UnreachableError as error:
            reason = error.reason
        n_lost = 1 if partial.n_bytes > before else n_lost + 1
        if n_lost > len(WAITS_S):
            whole = "" if file.n_bytes is None else f" of {size_text(file.n_bytes)}"
            raise HubError(
                f"{file.name}: interrupted ({reason}); {size_text(partial.n_bytes)}{whole} are kept, and the same "
                f"command goes on from there"
            )
        time.sleep(WAITS_S[n_lost - 1])


def _receive(answer: Answer, name: str, partial: PartialFile, limit: int, progress: Callable[[int], object]) -> None:
    start = _start(answer)
    if start != partial.n_bytes:  # it does not do ranges, and sends all of it
        progress(-partial.n_bytes)
        partial.clear()
        if start:
            raise HubError(f"{name}: expected bytes from 0 or from where it stopped, got bytes from {start}")
    for chunk in answer.chunks:
        if partial.n_bytes + len(chunk) > limit:
            partial.clear()
            raise HubError(f"{name}: expected {size_text(limit)} at most, got more: the hub sends another file")
        partial.add(chunk)
        progress(len(chunk))


def _start(answer: Answer) -> int:
    found = _CONTENT_RANGE.match(answer.headers.get("content-range", "")) if answer.status == 206 else None
    return int(found[1]) if found else 0


def size_text(n_bytes: int) -> str:
    """A size for people, in units of powers of ten."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes} bytes"
