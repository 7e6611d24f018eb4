"""Which files of a repository are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gpu_select.domain_file import DOMAIN_FILE
from gpu_select.download.contents import kind_of
from gpu_select.download.repository import RemoteFile, Repository, listed
from gpu_select.errors import ConfigError, HubError
from gpu_select.wire import ALGORITHMS, file_name

__all__ = ["What", "check_names", "choose"]

What = Literal["models", "data"]


def check_names(names: Sequence[str]) -> None:
    """Refuse names of files that could not be checked, before the hub is asked.

    Raises:
        ConfigError: a name that ends like none of them.
    """
    for name in names:
        if kind_of(name) is None:
            expected = f"a selector file (.json), records (.jsonl), both also with .gz or .zst, or {DOMAIN_FILE}"
            raise ConfigError("file", name, expected)


def choose(repository: Repository, what: What, names: Sequence[str] = ()) -> list[RemoteFile]:
    """The files to download.

    Args:
        repository: where they are.
        what: without names, "models" takes the selector files and the domain head of its top folder, "data" the
            records there.
        names: their names, if only these are wanted.

    Raises:
        HubError: it does not have them; names those it has.
    """
    where = f"{repository.repo_type} repository {repository.repo_id} at {repository.commit[:12]}"
    has = listed(repository.files)
    for name in names:
        if name not in repository.files:
            raise HubError(f"{where}: expected a file {name}, got {has}")
    if names:
        return [repository.files[name] for name in dict.fromkeys(names)]
    top = sorted(name for name in repository.files if "/" not in name)
    if what == "data":
        chosen = [name for name in top if kind_of(name) == "records"]
        expected = "records (.jsonl, .jsonl.gz or .jsonl.zst)"
    else:
        chosen = [
            next(name for name in variants if name in top)
            for algorithm in ALGORITHMS
            if not set(variants := _variants(algorithm)).isdisjoint(top)
        ]
        expected = f"one of {', '.join(map(file_name, ALGORITHMS))}"
    if not chosen:
        raise HubError(f"{where}: expected {expected} in its top folder, got {has}; --file takes others")
    if what == "models" and DOMAIN_FILE in top:
        chosen.append(DOMAIN_FILE)
    return [repository.files[name] for name in chosen]


def _variants(algorithm: str) -> list[str]:
    """In the order in which a folder's are looked for."""
    return [file_name(algorithm) + ending for ending in ("", ".gz", ".zst")]
