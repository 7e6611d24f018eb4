"""A random encoder of tiny shape, made as the true one is."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_select.encoder import Encoder, load_encoder
from gpu_select.throughput import Shape, ensure_random_encoder

TINY = Shape("tiny", 64, 96, 3, 4, 2, 16, 700, max_position_embeddings=256)


@pytest.fixture(scope="session")
def tiny_shape() -> Shape:
    return TINY


@pytest.fixture(scope="session")
def corpus_bytes() -> int:
    """Text that the tiny tokenizer is trained on."""
    return 200_000


@pytest.fixture(scope="session")
def random_path(tmp_path_factory: pytest.TempPathFactory, corpus_bytes: int) -> Path:
    return ensure_random_encoder(tmp_path_factory.mktemp("random"), TINY, corpus_bytes=corpus_bytes)


@pytest.fixture(scope="session")
def random_tiny(random_path: Path) -> Encoder:
    return load_encoder(str(random_path))
