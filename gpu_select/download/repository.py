"""What a repository of a hub holds at one commit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Any, Literal
from urllib.parse import quote

from gpu_select.download.checksums import Checksum
from gpu_select.download.connection import Connection, RefusedError
from gpu_select.errors import ConfigError, HubError, brief

__all__ = ["RemoteFile", "RepoType", "Repository", "listed", "open_repository"]

RepoType = Literal["model", "dataset"]

_MAX_FILES = 100_000
_MAX_NAME_BYTES = 1024
_MAX_PART_BYTES = 200
_SHOWN_NAMES = 20
_REPO_ID = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,95}/)?[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, as its listing describes it."""

    name: str
    """Relative to the top, with slashes."""
    n_bytes: int | None
    checksum: Checksum | None
    """None where the hub does not tell; so for the size."""


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    connection: Connection
    repo_id: str
    repo_type: RepoType
    commit: str
    """The commit's hash: further answers are all of this one, even if the branch moves."""
    files: Mapping[str, RemoteFile]

    def url(self, name: str) -> str:
        """Where one of its files is."""
        page = _page(self.connection.endpoint, self.repo_id, self.repo_type)
        return f"{page}/resolve/{self.commit}/{quote(name)}"

    def refusal(self, refused: RefusedError) -> HubError:
        """What the refusal of one of its files means."""
        return _refusal(self.connection, refused, self.repo_id, self.repo_type, self.commit)


def open_repository(connection: Connection, repo_id: str, repo_type: RepoType, revision: str = "main") -> Repository:
    """Ask a hub what a repository holds.

    Args:
        connection: to the hub.
        repo_id: `organisation/name`.
        repo_type: "model" or "dataset".
        revision: a branch, a tag or a commit.

    Raises:
        ConfigError: `repo_id` or `revision` cannot be one.
        HubError: the hub cannot be reached, does not have it or does not give it away; or the listing is none, or has
            names that would lead out of a folder.
    """
    if not _REPO_ID.fullmatch(repo_id) or ".." in repo_id:
        raise ConfigError("repo-id", repo_id, "organisation/name, as in a repository's address on the hub")
    if not _is_revision(revision):
        raise ConfigError("revision", revision, "a branch, a tag or a commit")
    try:
        document = connection.get_json(f"{repo_type}s/{repo_id}/revision/{quote(revision, safe='')}?blobs=true")
    except RefusedError as refused:
        if refused.is_temporary:
            raise
        raise _refusal(connection, refused, repo_id, repo_type, revision) from refused
    commit, siblings = document.get("sha"), document.get("siblings")
    if not (isinstance(commit, str) and _COMMIT.fullmatch(commit) and isinstance(siblings, list)):
        raise connection.no_hub("one without sha and siblings")
    if len(siblings) > _MAX_FILES:
        raise HubError(f"{repo_id}: expected at most {_MAX_FILES} files, got {len(siblings)}")
    files = [_remote_file(connection, repo_id, sibling) for sibling in siblings]
    return Repository(connection, repo_id, repo_type, commit, {file.name: file for file in files})


def listed(names: Iterable[str]) -> str:
    """Some names, for an error's text."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _SHOWN_NAMES} more" if len(ordered) > _SHOWN_NAMES else ""
    return (", ".join(ordered[:_SHOWN_NAMES]) + more) or "nothing"


def _page(endpoint: str, repo_id: str, repo_type: RepoType) -> str:
    return f"{endpoint}/{'' if repo_type == 'model' else f'{repo_type}s/'}{repo_id}"


def _is_revision(revision: str) -> bool:
    """Whether git could know it; an address would take dots for a way up."""
    dots = revision.startswith(".") or ".." in revision
    return bool(revision.strip()) and revision.isprintable() and len(revision) <= 255 and not dots


def _remote_file(connection: Connection, repo_id: str, sibling: Any) -> RemoteFile:
    if not isinstance(sibling, dict) or not isinstance(sibling.get("rfilename"), str):
        raise connection.no_hub("a file without a name")
    name = sibling["rfilename"]
    if not _is_plain(name):
        raise HubError(
            f"{repo_id}: expected file names that stay within a folder, got {brief(name)}: nothing of it is taken"
        )
    lfs = sibling.get("lfs")
    described = lfs if isinstance(lfs, dict) else sibling
    n_bytes = described.get("size")
    if isinstance(lfs, dict):
        checksum = _checksum("sha256", lfs.get("sha256"), _SHA256)
    else:
        checksum = _checksum("git", sibling.get("blobId"), _SHA1)
    return RemoteFile(name, n_bytes if type(n_bytes) is int and n_bytes >= 0 else None, checksum)


def _checksum(kind: Literal["sha256", "git"], value: object, expected: re.Pattern[str]) -> Checksum | None:
    return Checksum(kind, value) if isinstance(value, str) and expected.fullmatch(value) else None


def _is_plain(name: str) -> bool:
    """Whether a name is that of a file within a folder, under the rules of Windows, too."""
    parts = name.split("/")
    return (
        name.isprintable()
        and len(name.encode("utf-8")) <= _MAX_NAME_BYTES
        and "\\" not in name
        and all(part not in ("", ".", "..") and len(part.encode("utf-8")) <= _MAX_PART_BYTES for part in parts)
        and not any(PureWindowsPath(part).drive for part in parts)
    )


def _refusal(
    connection: Connection, refused: RefusedError, repo_id: str, repo_type: RepoType, revision: str
) -> HubError:
    """What was refused, and what the user can do."""
    what = f"{repo_type} repository {repo_id} on {connection.shown}"
    if refused.code == "RevisionNotFound":
        return HubError(f"{what}: no revision {brief(revision)}{_revisions(connection, repo_id, repo_type)}")
    if refused.code == "EntryNotFound":
        return HubError(f"{what}: a file of its own listing is not there (404): try again")
    if refused.code == "GatedRepo":
        page = _page(connection.shown, repo_id, repo_type)
        token = (
            "the token that was sent has no access yet" if connection.has_token else "then set HF_TOKEN or give --token"
        )
        return HubError(f"{what} is gated: ask its owner for access at {page}; {token}")
    if refused.status == 401 and connection.has_token and refused.code != "RepoNotFound":
        return HubError(
            f"{what}: the token is not accepted (401): renew the one in HF_TOKEN, --token or `hf auth login`"
        )
    if refused.status == 403:
        said = f", {refused.message}" if refused.message else ""
        return HubError(f"{what}: forbidden (403{said}): HF_TOKEN or --token has to be a token that may read it")
    if refused.status in (401, 404):
        other: RepoType = "dataset" if repo_type == "model" else "model"
        if _exists(connection, repo_id, other):
            cure = "gpu-select download data, or --repo-type dataset" if other == "dataset" else "--repo-type model"
            return HubError(f"{what}: there is none, but a {other} repository of that name: {cure}")
        private = "one that the token may not read" if connection.has_token else "a private one, which needs HF_TOKEN"
        return HubError(f"{what}: there is none, or {private}; check --repo-id ({repo_id})")
    return HubError(f"{what}: {refused.host} answers {refused.status} ({refused.message or 'no reason given'})")


def _revisions(connection: Connection, repo_id: str, repo_type: RepoType) -> str:
    """The branches and tags there are, if the hub tells."""
    try:
        refs = connection.get_json(f"{repo_type}s/{repo_id}/refs")
    except HubError:
        return ""
    lists = [refs.get(kind) for kind in ("branches", "tags")]
    named = [ref.get("name") for some in lists if isinstance(some, list) for ref in some if isinstance(ref, dict)]
    return f"; there are {listed(name for name in named if isinstance(name, str) and name.isprintable())}"


def _exists(connection: Connection, repo_id: str, repo_type: RepoType) -> bool:
    try:
        connection.get_json(f"{repo_type}s/{repo_id}")
    except HubError:
        return False
    return True
