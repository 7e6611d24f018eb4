"""Files as people publish them."""

from __future__ import annotations

import pytest

from gpu_select.download.connection import Connection
from gpu_select.download.repository import open_repository


@pytest.fixture(scope="session")
def model_files(write_tiny_models, tmp_path_factory) -> dict[str, bytes]:
    """A selector file of each kind and a domain head, by name."""
    own = {"encoder": {"name": "tiny", "fingerprint": "0" * 64}}
    folder = write_tiny_models(tmp_path_factory.mktemp("published"), own)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def published(hub):
    """Call with files: the repository some/repo that holds them, as the hub lists it."""

    def publish(files, token=None, **settings):
        hub.add("some/repo", files, **settings)
        return open_repository(Connection(token), "some/repo", "model")

    return publish
