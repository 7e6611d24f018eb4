from __future__ import annotations

from gpu_select.encoder import ENCODERS
from gpu_select.encoder.registry import find_spec


def test_names_and_hub_ids() -> None:
    assert {name: spec.hub_id for name, spec in ENCODERS.items()} == {
        "qwen3": "Qwen/Qwen3-Embedding-0.6B",
        "gte": "thenlper/gte-base",
        "mpnet": "sentence-transformers/all-mpnet-base-v2",
        "e5": "intfloat/e5-base-v2",
        "bge": "BAAI/bge-base-en-v1.5",
        "minilm": "sentence-transformers/all-MiniLM-L6-v2",
    }


def test_what_the_models_files_leave_open() -> None:
    assert {name: spec.prefix for name, spec in ENCODERS.items() if spec.prefix} == {"e5": "query: "}
    assert {name: spec.pooling for name, spec in ENCODERS.items() if spec.pooling != "mean"} == {
        "qwen3": "last",
        "bge": "cls",
    }


def test_an_encoder_is_found_by_name_and_by_hub_id() -> None:
    assert find_spec("e5") is find_spec("intfloat/e5-base-v2") is ENCODERS["e5"]
    assert find_spec("intfloat/e5-base") is None
