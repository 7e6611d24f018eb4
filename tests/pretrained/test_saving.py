from __future__ import annotations

import copy
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

from gpu_select.encoder import load_encoder
from gpu_select.errors import EncoderError, OutputError
from gpu_select.files import atomic_path
from gpu_select.pretrained import saving
from gpu_select.router import Router

TEXTS = ["what is the number of the city", "explain the law", "solve", "how many cells and how much energy"]


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def same(first, second):
    a, b = first.route(TEXTS), second.route(TEXTS)
    return a.models == b.models and a.scores.tolist() == b.scores.tolist() and a.margins.tolist() == b.margins.tolist()


def test_the_folder_holds_everything_and_nothing_else(routers, tmp_path):
    routers["svm"].save_pretrained(tmp_path / "new" / "router")
    folder = tmp_path / "new" / "router"
    assert files_of(folder) == [
        "config.json",
        "encoder/1_Pooling/config.json",
        "encoder/config.json",
        "encoder/model.safetensors",
        "encoder/modules.json",
        "encoder/sentence_bert_config.json",
        "encoder/tokenizer.json",
        "encoder/tokenizer_config.json",
        "model.safetensors",
    ]
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "gpu-select-router"
    assert config["selector"] == {
        "algorithm": "svm",
        "dim": 46,
        "models": ["a", "b", "c"],
        "rbf_gammas": [1.0, 1.0, 1.0],
    }
    assert config["encoder"] == {
        "name": "tiny-bert",
        "revision": None,
        "fingerprint": routers["svm"].encoder.fingerprint,
        "included": True,
    }


def test_the_tensors_are_the_selectors_part_of_the_state_dict(routers, saved_once):
    for name, router in routers.items():
        tensors = load_file(saved_once / name / "model.safetensors")
        expected = {key: value for key, value in router.state_dict().items() if key.startswith("selector.")}
        assert tensors.keys() == expected.keys()
        assert all(tensors[key].equal(expected[key]) for key in tensors)


def test_the_encoders_folder_is_a_model_of_its_own(routers, saved_once):
    encoder = load_encoder(str(saved_once / "knn" / "encoder"))
    assert encoder.fingerprint == routers["knn"].encoder.fingerprint


def test_without_the_encoder(routers, tmp_path):
    routers["mlp"].save_pretrained(tmp_path, include_encoder=False)
    assert files_of(tmp_path) == ["config.json", "model.safetensors"]
    assert json.loads((tmp_path / "config.json").read_text())["encoder"]["included"] is False


def test_the_same_router_gives_the_same_bytes(routers, tmp_path):
    for folder in (tmp_path / "a", tmp_path / "b"):
        routers["knn"].save_pretrained(folder)
    for name in files_of(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_save_replaces_an_earlier_one_and_leaves_the_rest(routers, tmp_path):
    routers["knn"].save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "encoder" / "vocab.txt").write_text("of an older encoder")
    routers["svm"].save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert not (tmp_path / "encoder" / "vocab.txt").exists()
    assert same(Router.from_pretrained(tmp_path, device="cpu"), routers["svm"])
    routers["svm"].save_pretrained(tmp_path, include_encoder=False)
    assert not (tmp_path / "encoder").exists()


def test_into_the_folder_that_it_came_from(routers, saved):
    folder = saved("kmeans")
    router = Router.from_pretrained(folder, device="cpu")
    router.save_pretrained(folder)
    router.save_pretrained(folder)
    assert same(Router.from_pretrained(folder, device="cpu"), routers["kmeans"])


@pytest.mark.parametrize("n_files", range(9))
def test_a_save_that_breaks_off_leaves_no_config(routers, saved, monkeypatch, n_files):
    """Whichever file the disk is full at; a folder with a config is a whole one."""
    folder = saved("knn")
    written = []

    def failing(path):
        written.append(path)
        if len(written) > n_files:
            raise OSError(28, "No space left on device")
        return atomic_path(path)

    monkeypatch.setattr(saving, "atomic_path", failing)
    monkeypatch.setattr("gpu_select.encoder.copying.atomic_path", failing)
    if n_files < 8:
        with pytest.raises(OSError, match="No space left on device"):
            routers["svm"].save_pretrained(folder)
    else:
        routers["svm"].save_pretrained(folder)
    if n_files < 7:  # the copy of the encoder was not complete: nothing has been touched
        assert same(Router.from_pretrained(folder, device="cpu"), routers["knn"])
    elif n_files == 7:
        assert not (folder / "config.json").exists()
    assert not [name for name in os.listdir(folder) if name.endswith(".tmp")]


def test_places_that_cannot_be_written_to(routers, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"cannot write .*file: it is a file, and a folder is expected"):
        routers["knn"].save_pretrained(tmp_path / "file")
    (tmp_path / "other" / "encoder").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"it has a folder encoder that is no saved router's"):
        routers["knn"].save_pretrained(tmp_path / "other")
    assert files_of(tmp_path / "other") == []


def test_an_encoder_whose_files_have_changed_or_gone(routers, saved, tmp_path):
    folder = saved("knn")
    router = Router.from_pretrained(folder, device="cpu")
    (folder / "encoder" / "sentence_bert_config.json").write_text('{"max_seq_length": 32, "do_lower_case": true}')
    (folder / "encoder" / "tokenizer_config.json").write_text("{}")
    with pytest.raises(EncoderError, match="has changed since encoder tiny-bert was loaded: load it again"):
        router.save_pretrained(tmp_path / "out")
    shutil.rmtree(folder)
    with pytest.raises(EncoderError, match=r"got neither|cannot be read"):
        router.save_pretrained(tmp_path / "out")
    assert files_of(tmp_path / "out") == []
    router.save_pretrained(tmp_path / "out", include_encoder=False)


def test_an_encoder_that_came_from_no_files(routers, tmp_path):
    router = copy.deepcopy(routers["knn"])
    router.encoder.folder = None
    with pytest.raises(EncoderError, match="encoder tiny-bert: was not loaded from files, of which it could be saved"):
        router.save_pretrained(tmp_path)


def test_weights_that_load_state_dict_put_there(routers, tmp_path):
    router = copy.deepcopy(routers["knn"])
    router.load_state_dict(router.state_dict(), strict=True)
    router.save_pretrained(tmp_path / "same")
    state = router.state_dict()
    state["encoder.backbone.word"] = state["encoder.backbone.word"] + 1
    router.load_state_dict(state, strict=True)
    with pytest.raises(EncoderError, match=r"load_state_dict gave it other weights than those of .*tiny-bert"):
        router.save_pretrained(tmp_path / "other")
    assert files_of(tmp_path / "other") == []


def test_in_another_dtype_the_files_stay_what_they_are(routers, tmp_path):
    router = copy.deepcopy(routers["svm"]).to(torch.bfloat16)
    router.save_pretrained(tmp_path)
    assert same(Router.from_pretrained(tmp_path, device="cpu"), routers["svm"])


def test_a_full_disk_is_one_line(routers, tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(*arguments):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(saving, "save_file", full)
    with pytest.raises(OutputError, match=r"cannot write .*model\.safetensors: .*No space left on device"):
        routers["knn"].save_pretrained(tmp_path, include_encoder=False)
    assert files_of(tmp_path) == []


def test_a_folder_that_cannot_be_put_in_its_place_is_one_line(routers, tmp_path, monkeypatch):
    def refusing(source, target):
        if os.path.basename(target) == "encoder":
            raise OSError(13, "Permission denied")
        rename(source, target)

    rename = os.replace
    monkeypatch.setattr(os, "replace", refusing)
    with pytest.raises(OutputError, match=r"cannot write .*encoder: Permission denied"):
        routers["knn"].save_pretrained(tmp_path)
