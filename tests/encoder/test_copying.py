from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gpu_select.encoder import load_encoder
from gpu_select.encoder.copying import copy_model
from gpu_select.errors import EncoderError


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_copy_is_the_same_encoder(tiny_encoder_path: Path, tmp_path: Path) -> None:
    copy_model(tiny_encoder_path, tmp_path / "copy")
    copied, first = load_encoder(str(tmp_path / "copy")), load_encoder(str(tiny_encoder_path))
    assert copied.fingerprint == first.fingerprint
    assert copied.settings == first.settings


def test_what_does_not_count_is_left_behind(write_tiny_bert: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_tiny_bert(tmp_path / "model", pooling=None)
    expected = files_of(folder)
    for name in ("modeling.py", "pytorch_model.bin", "README.md", "onnx/model.onnx", "1_Pooling/config.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    copy_model(folder, tmp_path / "copy")
    assert files_of(tmp_path / "copy") == expected


def test_shards_are_copied_with_their_index(tiny_encoder_path: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = tmp_path / "model"
    copy_model(tiny_encoder_path, folder)
    os.unlink(folder / "model.safetensors")
    AutoModel.from_pretrained(tiny_encoder_path).save_pretrained(folder, max_shard_size="10KB")
    names = files_of(folder)
    assert "model.safetensors.index.json" in names
    copy_model(folder, tmp_path / "copy")
    assert files_of(tmp_path / "copy") == names
    assert load_encoder(str(tmp_path / "copy")).fingerprint == load_encoder(str(folder)).fingerprint


def test_files_of_the_hubs_cache_are_followed(tiny_encoder_path: Path, tmp_path: Path) -> None:
    (tmp_path / "links" / "1_Pooling").mkdir(parents=True)
    for name in files_of(tiny_encoder_path):
        if (tmp_path / "links" / name).parent.is_dir():
            (tmp_path / "links" / name).symlink_to(tiny_encoder_path / name)
    copy_model(tmp_path / "links", tmp_path / "copy")
    assert not any((tmp_path / "copy" / name).is_symlink() for name in files_of(tmp_path / "copy"))
    assert load_encoder(str(tmp_path / "copy")).dim == 32


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        EncoderError, match=r"expected model\.safetensors or model\.safetensors\.index\.json, got neither"
    ):
        copy_model(tmp_path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
