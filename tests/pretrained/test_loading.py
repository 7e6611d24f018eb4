from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpu_select.encoder import load_encoder
from gpu_select.errors import EncoderError, EncoderMismatchError, FileFormatError, InputError
from gpu_select.router import Router

TEXTS = ["what is the number of the city", "explain the law", "solve", "how many cells and how much energy"]

each_algorithm = pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm", "mlp"])


def load(folder, **options):
    return Router.from_pretrained(folder, device="cpu", **options)


def same(first, second):
    a, b = first.route(TEXTS), second.route(TEXTS)
    return a.models == b.models and a.scores.tolist() == b.scores.tolist() and a.margins.tolist() == b.margins.tolist()


@each_algorithm
def test_a_router_comes_back_as_it_was(routers, saved_once, algorithm):
    router = load(saved_once / algorithm)
    before, after = routers[algorithm].state_dict(), router.state_dict()
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)
    assert same(router, routers[algorithm])
    assert router.encoder.name == "tiny-bert"
    assert router.selector.algorithm == algorithm
    assert not router.training
    assert router.load_state_dict(before, strict=True).missing_keys == []


@each_algorithm
def test_it_needs_neither_the_first_encoder_nor_a_hub(saved, algorithm, monkeypatch, routers):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = saved(algorithm)
    moved = folder.parent / "moved somewhere else"
    os.rename(folder, moved)
    assert same(load(str(moved)), routers[algorithm])


def test_options_reach_the_parts(saved_once):
    router = load(saved_once / "knn", dtype="bfloat16", deterministic=True)
    assert router.encoder.dtype == torch.bfloat16
    assert router.selector.deterministic
    assert router.encoder.deterministic
    with pytest.raises(FileFormatError, match=r"config\.json: selector\.algorithm: expected 'svm', got 'knn'"):
        load(saved_once / "knn", algorithm="svm")
    assert load(saved_once / "knn", algorithm="knn").selector.algorithm == "knn"


def test_an_encoder_of_the_callers_own(saved_once, routers, tiny_encoder_path, tmp_path, write_tiny_bert):
    encoder = routers["knn"].encoder
    assert load(saved_once / "mlp", encoder=encoder).encoder is encoder
    assert same(load(saved_once / "mlp", encoder=str(tiny_encoder_path)), routers["mlp"])
    other = str(write_tiny_bert(tmp_path / "other", hidden_act="relu"))
    for given in (other, load_encoder(other)):
        with pytest.raises(EncoderMismatchError, match=r"json: trained with encoder 'tiny-bert' .*, got 'other'"):
            load(saved_once / "mlp", encoder=given)


def test_an_encoder_that_is_only_named(routers, tmp_path, monkeypatch, tiny_encoder_path, write_tiny_bert):
    routers["svm"].save_pretrained(tmp_path / "router", include_encoder=False)
    monkeypatch.chdir(tiny_encoder_path.parent)  # where the name is that of a folder
    assert same(load(tmp_path / "router"), routers["svm"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EncoderError, match="encoder 'tiny-bert': no such folder, and not a hub id"):
        load(tmp_path / "router")
    write_tiny_bert(tmp_path / "tiny-bert", hidden_act="relu")
    with pytest.raises(EncoderMismatchError, match="route with the first, or train again with the second"):
        load(tmp_path / "router")


def test_an_encoder_that_was_exchanged(saved, tmp_path, write_tiny_bert):
    folder = saved("knn")
    shutil.rmtree(folder / "encoder")
    with pytest.raises(EncoderError, match=r"encoder: expected the folder of a transformers model, got no"):
        load(folder)
    write_tiny_bert(folder / "encoder", hidden_act="relu")
    with pytest.raises(EncoderMismatchError, match=r"trained with encoder 'tiny-bert' .*, got 'tiny-bert'"):
        load(folder)


def test_selector_files_go_on_beside_a_config_of_something_else(tmp_path, write_tiny_models, tiny_encoder_path):
    """A hub repository of selector files may have one."""
    folder = write_tiny_models(tmp_path, {})
    for contents in ('{"model_type": "bert"}', "not JSON"):
        (folder / "config.json").write_text(contents)
        router = load(folder, encoder=str(tiny_encoder_path))
        assert router.selector.algorithm == "knn"


def test_a_folder_of_neither(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match=r"pretrained model not found: .* holds none of knn_model"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("not JSON")
    with pytest.raises(FileFormatError, match=r"config\.json: contents: expected JSON, got "):
        load(tmp_path)


# ---------------------------------------------------------------- broken and hostile files


def broken(folder):
    """Loading has to fail with one line that begins with the file."""
    with pytest.raises((FileFormatError, InputError)) as caught:
        load(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text.replace(str(folder), "")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"gpu_select__format": 2}, "/config.json: gpu_select.format: expected 1, which this version reads, got 2"),
        ({"gpu_select": []}, "/config.json: gpu_select: expected an object, got []"),
        ({"selector": None}, "/config.json: selector: expected an object, got None"),
        ({"encoder": "x"}, "/config.json: encoder: expected an object, got 'x'"),
        ({"selector__algorithm": "forest"}, "selector.algorithm: expected one of knn, kmeans, svm, mlp, got 'forest'"),
        ({"selector__algorithm": ["knn"]}, "selector.algorithm: expected one of knn, kmeans, svm, mlp, got ['knn']"),
        ({"selector__dim": 10**9}, "selector.dim: expected an integer from 1 to 1048576, got 1000000000"),
        ({"selector__dim": True}, "selector.dim: expected an integer from 1 to 1048576, got True"),
        ({"selector__dim": 45}, "selector.index.flat.smallest.all.weight_ND: expected float32 of shape (any, 45), got"),
        ({"selector__models": []}, "selector.models: expected a list of 1 to 10000 names, got []"),
        ({"selector__models": ["a", "b", 3]}, "selector.models[2]: expected a name of 1 to 1000 characters, got 3"),
        ({"selector__models": ["a", "b", "c" * 2000]}, "selector.models[2]: expected a name of 1 to 1000 characters"),
        ({"selector__models": ["a", "b", "a"]}, "selector.models: expected different names, got ['a', 'b', 'a']"),
        ({"selector__models": ["a", "b"]}, "selector.label_N: expected numbers from 0 to 1, got another one"),
        ({"selector__models": ["a", "b", "c", "d"]}, "selector.models: expected the order in which the tensors have"),
        ({"selector__n_neighbors": 0}, "/config.json: selector.n_neighbors: expected an integer >= 1, got 0"),
        ({"selector__n_neighbors": "5"}, "/config.json: selector.n_neighbors: expected an integer >= 1, got '5'"),
        (
            {"selector__n_neighbors": 40},
            "selector.weight_N: expected what follows from the other tensors, got other",
        ),
        ({"encoder__name": ""}, "/config.json: encoder.name: expected a name, got ''"),
        ({"encoder__name": "a\nb"}, "/config.json: encoder.name: expected a name, got 'a\\nb'"),
        ({"encoder__fingerprint": "0" * 63}, "encoder.fingerprint: expected 64 hexadecimal digits, got '000000"),
        ({"encoder__revision": "main"}, "encoder.revision: expected null or the 40 hexadecimal digits of a commit"),
        ({"encoder__included": 1}, "encoder.included: expected true or false, got 1"),
    ],
)
def test_a_config_that_says_something_else(saved, change, fields, text):
    folder = saved("knn")
    change(folder, **fields)
    assert text in broken(folder)


@pytest.mark.parametrize(
    ("algorithm", "fields", "text"),
    [
        ("svm", {"selector__rbf_gammas": [1.0, -1.0, 1.0]}, "selector.rbf_gammas: expected a list of numbers > 0, got"),
        ("svm", {"selector__rbf_gammas": [1.0, True, 1.0]}, "selector.rbf_gammas: expected a list of numbers > 0, got"),
        ("svm", {"selector__rbf_gammas": [10**400]}, "selector.rbf_gammas: expected a list of numbers > 0, got [1000"),
        ("svm", {"selector__rbf_gammas": 1.0}, "selector.rbf_gammas: expected a list of numbers > 0, got 1.0"),
        ("svm", {"selector__rbf_gammas": [1.0] * 9}, "selector.rbf_gammas: expected at most 4 numbers, got"),
        ("svm", {"selector__rbf_gammas": [1.0, 1.0]}, "selector.place_L: expected int64 of shape (2), got int64 of"),
        (
            "svm",
            {"selector__rbf_gammas": [1.0, 2.0, 1.0]},
            "selector.norms_less_products.1.weight_ND: expected float32",
        ),
        ("mlp", {"selector__layers": []}, "selector.layers: expected a list of linear, relu and scale, with one"),
        ("mlp", {"selector__layers": ["relu"]}, "selector.layers: expected a list of linear, relu and scale"),
        ("mlp", {"selector__layers": ["linear", "exec", "linear"]}, "selector.layers: expected a list of linear, relu"),
        ("mlp", {"selector__layers": ["linear", "scale", "linear"]}, "selector.steps.1.scale_W: expected float32 of"),
        ("mlp", {"selector__layers": ["linear", "relu"]}, "selector.steps.2.bias_N: expected no such tensor, got one"),
        ("mlp", {"selector__layers": ["linear"] * 2000}, "selector.layers: expected a list of linear, relu and scale"),
    ],
)
def test_parameters_that_the_tensors_cannot_have(saved, change, algorithm, fields, text):
    folder = saved(algorithm)
    change(folder, **fields)
    assert text in broken(folder)


@pytest.mark.parametrize(
    ("contents", "text"),
    [
        (b"", "/config.json: contents: expected JSON, got "),
        (b"[1, 2]", "/config.json: contents: expected a JSON object, got [1, 2]"),
        (b'{"model_type": "gpu-select-router"', "/config.json: contents: expected JSON, got "),
        (b"\xff\xfe", "/config.json: contents: expected JSON, got "),
        (b"[" * 100_000, "/config.json: contents: expected JSON, got "),
        (b'{"model_type": NaN}', "/config.json: contents: expected JSON, got "),
        (b" " * ((16 << 20) + 1), "/config.json: size: expected at most 16 MiB, got more"),
    ],
)
def test_a_config_that_is_none(saved, contents, text):
    folder = saved("kmeans")
    (folder / "config.json").write_bytes(contents)
    assert text in broken(folder)


def rewrite(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def setter(name, value):
    def edit(tensors):
        tensors[f"selector.{name}"] = value(tensors[f"selector.{name}"].clone())

    return edit


def put(place, number):
    def value(tensor):
        tensor.flatten()[place] = number
        return tensor

    return value


VECTORS = "index.flat.smallest.all.weight_ND"


@pytest.mark.parametrize(
    ("algorithm", "name", "value", "text"),
    [
        ("knn", VECTORS, put(0, torch.nan), "expected finite numbers of at most 1e+15 in magnitude"),
        ("knn", VECTORS, put(0, torch.inf), "expected finite numbers of at most 1e+15 in magnitude"),
        ("knn", VECTORS, put(0, 3.0), "rows_UR: expected what follows from the other tensors, got"),
        ("knn", VECTORS, lambda t: t.double(), "expected float32 of shape (any, 46), got float64 of shape (60, 46)"),
        ("knn", VECTORS, lambda t: t[:0], "expected float32 of shape (any, 46), got float32 of shape (0, 46)"),
        ("knn", "index.rows_UR", put(0, 10**12), "expected numbers from 0 to 60, got another one"),
        ("knn", "index.rows_UR", put(0, -1), "expected numbers from 0 to 60, got another one"),
        ("knn", "index.rows_UR", put(0, 3), "index.rows_UR: expected each of 60 rows once, got other rows"),
        ("knn", "label_N", lambda t: t[:1], "index.rows_UR: expected numbers from 0 to 0, got another one"),
        ("knn", "votes_N", put(0, -1), "votes_N: expected the bits of positive numbers up to 1e+15, got others"),
        ("knn", "votes_N", lambda t: t[1:], "votes_N: expected int64 of shape (60), got int64 of shape (59,)"),
        ("knn", "weight_N", put(0, 5), "weight_N: expected what follows from the other tensors, got other numbers"),
        ("knn", "unit", lambda t: t * 2, "unit: expected what follows from the other tensors, got other numbers"),
        ("knn", "index.count_UM", put(0, 7.0), "index.count_UM: expected what follows from the other tensors"),
        ("kmeans", "place_K", put(0, 99), "place_K: expected numbers from 0 to 11, got another one"),
        ("kmeans", "owner_K", put(0, -5), "owner_K: expected numbers from 0 to 2, got another one"),
        ("kmeans", "products_less_norms.bias_N", put(0, 0.5), "bias_N: expected what follows from the other tensors"),
        ("svm", "rho_F", put(0, torch.nan), "rho_F: expected finite numbers"),
        ("svm", "place_0", put(0, 77), "place_0: expected numbers from 0 to "),
        ("svm", "owner_F", lambda t: t[:0], "owner_F: expected int64 of shape (any), got int64 of shape (0,)"),
        ("svm", "weighted_sums.0.weight_ND", lambda t: t[:, :3].contiguous(), "weighted_sums.0.weight_ND: expected"),
        ("svm", "norms_less_products.0.bias_N", put(2, 9.0), "bias_N: expected what follows from the other tensors"),
        ("mlp", "place_M", put(0, 12), "place_M: expected numbers from 0 to 2, got another one"),
        ("mlp", "steps.0.bias_N", put(0, torch.inf), "steps.0.bias_N: expected finite numbers"),
        ("mlp", "steps.2.weight_ND", lambda t: t[:, 1:].contiguous(), "steps.2.weight_ND: expected float32 of shape"),
    ],
)
def test_tensors_that_no_selector_has(saved, algorithm, name, value, text):
    folder = saved(algorithm)
    rewrite(folder, setter(name, value))
    found = broken(folder)
    assert found.startswith("/model.safetensors: selector.")
    assert text in found


@each_algorithm
def test_tensors_that_are_missing_or_too_many(saved, algorithm):
    folder = saved(algorithm)
    whole = load_file(folder / "model.safetensors")
    for name in whole:
        save_file({key: value for key, value in whole.items() if key != name}, folder / "model.safetensors")
        assert f"{name}: expected " in broken(folder)
    save_file(whole | {"selector.more": torch.zeros(3)}, folder / "model.safetensors")
    assert "selector.more: expected no such tensor, got one" in broken(folder)
    save_file(whole | {"encoder.more": torch.zeros(3)}, folder / "model.safetensors")
    assert "tensors: expected names that begin with selector., got ['encoder.more'" in broken(folder)


def test_a_small_file_cannot_ask_for_endless_memory(saved, monkeypatch):
    monkeypatch.setattr("gpu_select.pretrained.selector_state._MOST_NUMBERS", 1000)
    for algorithm, text in (
        ("knn", "index.rows_UR: expected at most 1,000 numbers in all rows, got 60 rows"),
        ("mlp", None),
    ):
        folder = saved(algorithm)
        if text is None:
            load(folder)
        else:
            assert text in broken(folder)


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 100, -1])
def test_weights_that_are_cut_off(saved, cut):
    folder = saved("svm")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:cut])
    assert broken(folder).startswith("/model.safetensors: contents: expected a safetensors file, got ")
    (folder / "model.safetensors").unlink()
    assert "cannot read /model.safetensors: " in broken(folder)


def test_no_pickle_is_ever_read(saved):
    folder = saved("knn")
    os.rename(folder / "model.safetensors", folder / "pytorch_model.bin")
    assert "cannot read /model.safetensors: " in broken(folder)


def test_the_config_alone(saved):
    folder = saved("knn")
    document = json.loads((folder / "config.json").read_text())
    assert document["gpu_select"]["format"] == 1
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match="pretrained model not found"):
        load(folder)
