"""Which files a log is made of: names, patterns and folders, in a defined order."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from gpu_select.errors import InputError
from gpu_select.files import STDIO
from gpu_select.logs.formats import log_format

__all__ = ["find_logs"]


def find_logs(names: Sequence[str], format: str | None = None, *, output: str | None = None) -> list[str]:
    """The files behind some names: in the order of the names, those of one name sorted.

    Args:
        names: files; patterns with `*`, `?`, `[...]` and `**`; folders, which stand for the logs in them and in their
            folders, but for what begins with a dot or an underscore; or `-` alone.
        format: of all files, whatever their names say; of a folder, every file is then a log.
        output: a folder whose files are no input where it lies in one of the folders, or matches a pattern.

    Raises:
        InputError: a name stands for no file, a file comes twice, or `-` is not alone.
    """
    written = None if output is None else os.path.realpath(output)
    files = [file for name in names for file in _files(name, format, written)]
    if STDIO in files and len(files) > 1:
        raise InputError("cannot read standard input beside files: give -, or names of files")
    seen: dict[str, str] = {}
    for file in files:
        other = seen.setdefault(os.path.realpath(file), file)
        if other is not file:
            raise InputError(f"the input names {file} twice: its rows would be routed twice")
    return files


def _files(name: str, format: str | None, written: str | None) -> Iterator[str]:
    if name == STDIO:
        yield name
    elif os.path.isdir(name):
        found = sorted(_in_folder(name, format, written), key=lambda file: PurePath(file).parts)
        if not found:
            raise InputError(
                f"cannot read {name}: expected a folder with logs, got none by their names' endings; "
                f"name files, or give --input-format"
            )
        yield from found
    elif os.path.lexists(name) or not glob.has_magic(name):
        yield name  # opening it says what is wrong with it
    else:
        matches = sorted(glob.glob(name, recursive=True), key=lambda file: PurePath(file).parts)
        if not matches:
            raise InputError(f"cannot read {name}: no file matches this pattern")
        # with nothing else there, what is wrong is the output
        for match in [match for match in matches if not _lies_in(match, written)] or matches:
            if "**" not in name or not os.path.isdir(match):
                yield from _files(match, format, written)


def _in_folder(folder: str, format: str | None, written: str | None) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from error

    for path, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [
            name
            for name in folders
            if not name.startswith((".", "_")) and os.path.realpath(os.path.join(path, name)) != written
        ]
        for name in files:
            if not name.startswith((".", "_")) and _is_log(name, format):
                yield os.path.join(path, name)


def _lies_in(name: str, folder: str | None) -> bool:
    return folder is not None and (os.path.realpath(name) + os.sep).startswith(os.path.join(folder, ""))


def _is_log(name: str, format: str | None) -> bool:
    try:
        log_format(name, format, InputError)
    except InputError:
        return False
    return True
