"""From a repository into a folder: a file gets its name once its bytes are the hub's and it can be loaded."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpu_select.download.contents import MAX_BYTES, Contents, kind_of, load_contents
from gpu_select.download.fetching import fetch
from gpu_select.download.partial import PartialFile
from gpu_select.download.repository import RemoteFile, Repository
from gpu_select.errors import DataError, GpuSelectError, HubError, MissingDependencyError, OutputError

__all__ = ["STAGING", "SavedFile", "save"]

STAGING = ".gpu_select.download"
"""Folder, within the one that is downloaded to, of files that are still arriving."""


@dataclass(frozen=True)
class SavedFile:
    """A file that is complete and has been loaded."""

    name: str
    path: Path
    n_bytes: int
    contents: Contents
    is_new: bool
    """False where the same bytes were there already."""


def save(
    repository: Repository,
    file: RemoteFile,
    folder: str | Path,
    *,
    progress: Callable[[int], object] = lambda n_bytes: None,
) -> SavedFile:
    """Download a file, unless it is there already, and check it.

    Args:
        repository: where it is.
        file: one of its files, of a kind that `kind_of` knows.
        folder: gets it under its own name, folders of the repository included.
        progress: called with how many bytes more there are.

    Raises:
        HubError: it cannot be had, or its bytes are not those that the hub lists.
        DataError: it cannot be loaded. Then it is not kept, and what had its name before stays.
        MissingDependencyError: loading needs a package; its bytes are kept for the next run.
        OutputError: it cannot be written.
    """
    path = Path(folder, *file.name.split("/"))
    kind = kind_of(file.name)
    assert kind is not None, file.name
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder")
    if _is_there(path, file):
        n_bytes = path.stat().st_size
        progress(n_bytes)
        return SavedFile(file.name, path, n_bytes, _loaded(repository, file, path, path), is_new=False)
    staging = Path(folder) / STAGING / _key(file.name)
    # ends like its name, which tells how it is packed
    staged = staging / f"{_key(_version(repository, file))}.{path.name}"
    with PartialFile(staged) as partial:
        fetch(repository, file, partial, max_bytes=MAX_BYTES[kind], progress=progress)
        try:
            _check_bytes(repository, file, staged)
            contents = _loaded(repository, file, staged, path)
        except (DataError, HubError):
            partial.clear()
            _remove(staging)
            raise
        partial.publish(path)
    _remove(staging)
    return SavedFile(file.name, path, partial.n_bytes, contents, is_new=True)


def _version(repository: Repository, file: RemoteFile) -> object:
    """The same for the same bytes alone, so that no run goes on with the beginning of others."""
    return file.checksum or (repository.connection.endpoint, repository.repo_id, repository.commit)


def _key(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def _is_there(path: Path, file: RemoteFile) -> bool:
    if file.checksum is None or not path.is_file() or file.n_bytes not in (None, path.stat().st_size):
        return False
    return file.checksum.of(path) == file.checksum.value


def _check_bytes(repository: Repository, file: RemoteFile, staged: Path) -> None:
    if file.checksum is None:
        return
    got = file.checksum.of(staged)
    if got != file.checksum.value:
        raise HubError(
            f"{file.name} of {repository.repo_id}: expected {file.checksum.kind} checksum {file.checksum.value}, got "
            f"{got}: it was damaged on the way and is not kept; run the same command again"
        )


def _loaded(repository: Repository, file: RemoteFile, path: Path, shown: Path) -> Contents:
    try:
        return load_contents(path, file.name, str(shown))
    except MissingDependencyError:
        raise
    except GpuSelectError as error:
        reason = str(error).replace(str(path), f"{file.name} of {repository.repo_id}")
        fate = "it stands there already" if path == shown else "it is not kept"
        raise DataError(
            f"{reason}: the file is broken where it comes from, and {fate}; take another --revision or --file"
        ) from error


def _remove(staging: Path) -> None:
    """Remove what has arrived of a file in this and other versions, and the folder above once it is empty."""
    shutil.rmtree(staging, ignore_errors=True)
    with contextlib.suppress(OSError):
        staging.parent.rmdir()
