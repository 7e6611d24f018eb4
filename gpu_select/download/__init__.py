"""Published selector files and records: from a hub into a folder, each loaded before it gets its name."""

from gpu_select.download.choosing import What, check_names, choose
from gpu_select.download.connection import Connection
from gpu_select.download.contents import kind_of
from gpu_select.download.fetching import size_text
from gpu_select.download.repository import RemoteFile, Repository, RepoType, open_repository
from gpu_select.download.saving import SavedFile, save

__all__ = [
    "Connection",
    "RemoteFile",
    "RepoType",
    "Repository",
    "SavedFile",
    "What",
    "check_names",
    "choose",
    "kind_of",
    "open_repository",
    "save",
    "size_text",
]
