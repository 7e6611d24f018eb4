from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.errors import FileFormatError, GpuSelectError
from gpu_select.pretrained.config import SavedConfig, is_saved, read_config, write_config

CONFIG = SavedConfig(
    algorithm="knn",
    models=("a", "ä b", "c/d"),
    dim=46,
    parameters={"n_neighbors": 5},
    encoder_name="minilm",
    encoder_fingerprint="0" * 64,
    encoder_revision="a" * 40,
    has_encoder=True,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"encoder_revision": None, "has_encoder": False},
        {"algorithm": "kmeans", "parameters": {}},
        {"algorithm": "svm", "parameters": {"rbf_gammas": [0.1, 1e-7]}, "models": ("x" * 1000,)},
    ],
)
def test_what_is_written_is_read(tmp_path, changes):
    config = dataclasses.replace(CONFIG, **changes)
    write_config(tmp_path, config, "0.1.0")
    assert read_config(tmp_path) == config
    assert is_saved(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    write_config(tmp_path, config, "0.1.0")
    assert (tmp_path / "config.json").read_bytes() == before
    assert before.endswith(b"}\n")


def test_other_folders_are_none_of_ours(tmp_path):
    assert not is_saved(tmp_path)
    assert not is_saved(tmp_path / "absent")
    assert not is_saved("x" * 5000)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert not is_saved(tmp_path)
    with pytest.raises(FileFormatError, match="model_type: expected 'gpu-select-router', got 'bert'"):
        read_config(tmp_path)


@settings(max_examples=200)
@given(
    place=st.sampled_from([(), ("gpu_select",), ("selector",), ("encoder",)]), key=st.text(max_size=12), value=values
)
def test_anything_else_is_one_line(tmp_path_factory, place, key, value):
    folder = tmp_path_factory.mktemp("config")
    write_config(folder, CONFIG, "0.1.0")
    document = json.loads((folder / "config.json").read_text())
    target = document
    for step in place:
        target = target[step]
    for name in (key, *list(target)[:2]):
        target[name] = value
    (folder / "config.json").write_text(json.dumps(document))
    refused(folder)


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_are_one_line(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("config")
    (folder / "config.json").write_bytes(data)
    refused(folder)


def refused(folder):
    """Read, or refused as users are told."""
    try:
        config = read_config(folder)
    except GpuSelectError as error:
        text = str(error).replace(str(folder), "")
        assert "\n" not in text
        assert len(text) < 500
    else:
        assert isinstance(config, SavedConfig)
