"""Saved routers on the Hugging Face hub.

Not `PyTorchModelHubMixin`: it takes a pickle where there is no safetensors file, reads config.json unchecked, knows no
files beside these two, and keeps the arguments of `__init__`, which for a router are modules. Its three methods are
those of `Router`: save_pretrained, from_pretrained and push_to_hub.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from gpu_select.encoder.quiet import quiet
from gpu_select.errors import InputError, OutputError, brief
from gpu_select.pretrained.config import CONFIG_FILE, ENCODER_FOLDER, WEIGHTS_FILE

__all__ = ["HubOptions", "download", "is_hub_id", "upload"]

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")

_FILES = [CONFIG_FILE, WEIGHTS_FILE, *(f"{ENCODER_FOLDER}/*.{ending}" for ending in ("json", "txt", "model"))]
_FILES += [f"{ENCODER_FOLDER}/*.safetensors", "*_model.json", "*_model.json.gz", "*_model.json.zst"]
"""None of these can carry code."""


@dataclass(frozen=True)
class HubOptions:
    """How the hub is asked; by default as the environment says (HF_TOKEN, HF_HOME, HF_HUB_OFFLINE)."""

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    force_download: bool = False
    local_files_only: bool = False


def is_hub_id(name: str) -> bool:
    """Whether a name can be that of a repository."""
    return _HUB_ID.fullmatch(name) is not None and ".." not in name


def download(repo_id: str, options: HubOptions) -> Path:
    """The folder in the hub's cache with a repository's files.

    Raises:
        InputError: no such repository, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        with quiet():
            return Path(snapshot_download(repo_id, allow_patterns=_FILES, **asdict(options)))
    except Exception as error:  # OSError and ValueError by contract; the HTTP client underneath raises what it likes
        raise InputError(
            f"pretrained model not found: {repo_id} is no file or folder here, and was not found on the hub, or "
            f"the hub cannot be reached ({_reason(error)})"
        ) from error


def upload(folder: Path, repo_id: str, *, private: bool | None, token: str | bool | None, revision: str | None) -> str:
    """Put a folder's files into a repository, which is made where it does not exist; the commit's address.

    Raises:
        OutputError: no right to, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    if not is_hub_id(repo_id):
        raise OutputError(f"push_to_hub: expected a hub id (organisation/model), got {brief(repo_id)}")
    try:
        with quiet():
            hub = HfApi(token=token)
            repo_id = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
            if revision is not None:
                hub.create_branch(repo_id, branch=revision, exist_ok=True)
            commit = hub.upload_folder(
                repo_id=repo_id, folder_path=folder, revision=revision, commit_message="Upload a gpu_select router"
            )
    except Exception as error:
        raise OutputError(f"cannot write {repo_id} on the hub: {_reason(error)}") from error
    return str(commit.commit_url)


def _reason(error: Exception) -> str:
    return " ".join(str(error).strip().split("\n")[0].split())[:200] or type(error).__name__
