from __future__ import annotations

from pathlib import Path

import pytest

from gpu_select.encoder import checkpoint
from gpu_select.encoder.checkpoint import fingerprint, read_json_object, read_json_value, shard_names, weight_files
from gpu_select.errors import EncoderError


def test_single_file_wins_over_an_index(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "model.safetensors.index.json").write_text("broken")
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]


def test_sharded_weights(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"}}')
    (tmp_path / "m-1.safetensors").write_bytes(b"")
    with pytest.raises(EncoderError, match=r"m-2\.safetensors is missing, which model\.safetensors\.index\.json lists"):
        weight_files(tmp_path)
    (tmp_path / "m-2.safetensors").write_bytes(b"")
    assert weight_files(tmp_path) == [tmp_path / "m-1.safetensors", tmp_path / "m-2.safetensors"]


@pytest.mark.parametrize("name", ["../m.safetensors", "/etc/passwd", "a/b.safetensors", "m.bin", "", 3, None])
def test_shard_name_that_leads_elsewhere(name: object, tmp_path: Path) -> None:
    import json

    index = tmp_path / "index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(EncoderError, match=r"weight_map: expected names of \.safetensors files, got"):
        shard_names(index)


@pytest.mark.parametrize("text", ["{}", '{"weight_map": {}}', '{"weight_map": []}'])
def test_index_without_a_weight_map(text: str, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(EncoderError, match="weight_map: expected an object of parameter and file names"):
        shard_names(tmp_path / "index.json")


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(
        EncoderError, match=r"expected model\.safetensors or model\.safetensors\.index\.json, got neither"
    ):
        weight_files(tmp_path)
    (tmp_path / "pytorch_model-00001-of-00002.bin").write_bytes(b"")
    with pytest.raises(EncoderError, match="a pickle, which can run code and is never read: save the model with"):
        weight_files(tmp_path)


def test_json_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(EncoderError, match=r"x\.json: cannot be read \(No such file"):
        read_json_value(path)
    for text in ("{", "\ufeff{}", "[NaN]", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(EncoderError, match=r"x\.json: not valid JSON"):
            read_json_value(path)
    path.write_text("[1]")
    with pytest.raises(EncoderError, match=r"x\.json: expected a JSON object, got list"):
        read_json_object(path)
    monkeypatch.setattr(checkpoint, "_MAX_JSON_BYTES", 2)
    with pytest.raises(EncoderError, match=r"x\.json: expected at most 2 bytes of JSON, got more"):
        read_json_value(path)


def test_every_tokenizer_file_and_setting_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "README.md").write_text("not part of it")
    seen = {fingerprint(tmp_path, [("prefix", "")]), fingerprint(tmp_path, [("prefix", "q: ")])}
    for name in ("config.json", *checkpoint.TOKENIZER_FILES):
        (tmp_path / name).write_text("x")
        seen.add(fingerprint(tmp_path, [("prefix", "")]))
    assert len(seen) == 3 + len(checkpoint.TOKENIZER_FILES)
    before = fingerprint(tmp_path, [("prefix", "")])
    (tmp_path / "README.md").write_text("changed")
    assert fingerprint(tmp_path, [("prefix", "")]) == before
    assert len(before) == 64
