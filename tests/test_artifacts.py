"""Files of a folder to selectors, and whether they fit the encoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpu_select.artifacts import find_selector_files, load_selector, selector_of
from gpu_select.errors import EncoderMismatchError, FileFormatError, InputError
from gpu_select.selectors import KMeansSelector, KNNSelector, MLPSelector, SVMSelector
from gpu_select.wire import (
    BatchNormLayer,
    DropoutLayer,
    KMeansFile,
    KNNFile,
    LinearClassifier,
    LinearLayer,
    MLPFile,
    RBFClassifier,
    ReLULayer,
    SVMFile,
    write_selector_file,
)

OWN = {"encoder": {"name": "tiny", "fingerprint": "0123456789abcdef" * 4}}
KNN = KNNFile(2, np.eye(3, dtype=np.float32), ["a", "b", "a"], own=OWN)
KMEANS = KMeansFile(np.eye(3, dtype=np.float32), ["a", "b", "c"])
SVM = SVMFile(["a", "b"], "Linear", 1.0, [LinearClassifier(name, np.ones(3), 0.0) for name in "ab"])
MLP = MLPFile(
    ["b", "a"],
    [
        LinearLayer(np.ones((4, 3), np.float32)),
        BatchNormLayer(np.ones(4), np.zeros(4), np.zeros(4), np.ones(4), 1e-5),
        ReLULayer(),
        DropoutLayer(0.5),
        LinearLayer(np.array([[1, 1, 1, 1], [-1, 0, 0, 0]], np.float32), np.array([0.5, 2.0])),
    ],
)


@pytest.fixture
def folder(tmp_path):
    for name, document in (("knn", KNN), ("kmeans", KMEANS), ("svm", SVM), ("mlp", MLP)):
        write_selector_file(tmp_path / f"{name}_model.json", document)
    return tmp_path


def test_a_selector_of_each_kind():
    assert isinstance(selector_of(KNN), KNNSelector)
    assert isinstance(selector_of(KMEANS), KMeansSelector)
    assert isinstance(selector_of(SVM), SVMSelector)
    rbf = RBFClassifier("z", np.ones(2), np.eye(2, 3, dtype=np.float32), 0.0, 1.0)
    both = selector_of(SVMFile(["x"], "Rbf", 1.0, SVM.linear_classifiers, [rbf]))
    assert both.models == ("a", "b", "z"), "linear classifiers first; model_names decide nothing"
    assert (both.dim, both.algorithm) == (3, "svm")


def test_a_network(folder):
    assert isinstance(selector_of(MLP), MLPSelector)
    selector = load_selector(folder, algorithm="mlp").selector
    assert (selector.models, selector.dim, selector.algorithm) == (("b", "a"), 3, "mlp")
    scores_BM = selector(torch.tensor([[0.25, 0.5, 0.25], [-1.0, 0.0, 0.0]]))
    torch.testing.assert_close(scores_BM, torch.tensor([[4.5, 1.0], [0.5, 2.0]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("algorithm", ["knn", "kmeans", "svm", "mlp"])
def test_from_a_folder_by_algorithm_and_from_a_file(folder, algorithm):
    path = folder / f"{algorithm}_model.json"
    for artifact in (load_selector(folder, algorithm=algorithm), load_selector(path), load_selector(str(path))):
        assert artifact.path == path
        assert artifact.selector.algorithm == algorithm
        assert artifact.selector.device == torch.device("cpu")
    with pytest.raises(FileFormatError, match=f"algorithm: expected 'tree', got '{algorithm}'"):
        load_selector(path, algorithm="tree")


def test_plain_files_come_before_compressed_ones(folder):
    write_selector_file(folder / "knn_model.json.gz", KNN)
    (folder / "svm_model.json").rename(folder / "svm_model.json.gz")
    names = {algorithm: path.name for algorithm, path in find_selector_files(folder).items()}
    assert names == {
        "knn": "knn_model.json",
        "kmeans": "kmeans_model.json",
        "svm": "svm_model.json.gz",
        "mlp": "mlp_model.json",
    }
    assert list(names) == ["knn", "kmeans", "svm", "mlp"]


@pytest.mark.parametrize("name", ["", "absent", "x" * 5000, "nul\0byte"])
def test_a_folder_without_files_names_the_command(tmp_path, name):
    with pytest.raises(InputError) as caught:
        find_selector_files(tmp_path / name)
    assert str(caught.value) == (
        f"pretrained model not found: {tmp_path / name} holds none of knn_model.json, kmeans_model.json, "
        f"svm_model.json, mlp_model.json (train them: gpu-select train --data-file RECORDS.jsonl --output-dir "
        f"{tmp_path / name})"
    )


@pytest.mark.parametrize("name", ["absent.json", "x" * 5000])
def test_a_missing_file_names_the_command(tmp_path, name):
    with pytest.raises(InputError, match=r"^pretrained model not found: .* \(train it: gpu-select train --data-file "):
        load_selector(tmp_path / name)


def test_a_folder_that_lacks_the_algorithm(folder):
    (folder / "svm_model.json").unlink()
    with pytest.raises(InputError, match=f"pretrained model not found: {folder / 'svm_model.json'} "):
        load_selector(folder, algorithm="svm")


def test_a_folder_without_algorithm(folder):
    with pytest.raises(InputError, match=f"cannot read {folder}: Is a directory"):
        load_selector(folder)


def test_the_encoder_that_a_file_names(folder):
    assert load_selector(folder, algorithm="knn").encoder_name == "tiny"
    other = load_selector(folder, algorithm="svm")
    assert other.encoder_name is None
    other.check_encoder("any", "f" * 64)  # a file of another program names none
    load_selector(folder, algorithm="knn").check_encoder("renamed", OWN["encoder"]["fingerprint"])


def test_another_encoder_is_an_error_that_names_both(folder):
    with pytest.raises(EncoderMismatchError) as caught:
        load_selector(folder, algorithm="knn").check_encoder("minilm", "fedcba9876543210" * 4)
    assert str(caught.value) == (
        f"{folder / 'knn_model.json'}: trained with encoder 'tiny' (fingerprint 0123456789ab), got 'minilm' "
        "(fingerprint fedcba987654); route with the first, or train again with the second"
    )


@pytest.mark.parametrize(
    "encoder",
    ["tiny", 3, [], {}, {"name": "tiny"}, {"name": 3, "fingerprint": "f"}, {"name": "t", "fingerprint": None}],
)
def test_a_note_on_the_encoder_that_is_none_of_ours(tmp_path, encoder):
    path = tmp_path / "kmeans_model.json"
    write_selector_file(path, KMeansFile(KMEANS.centroids_KD, KMEANS.cluster_models, {"encoder": encoder}))
    artifact = load_selector(path)
    assert artifact.encoder_name in (None, "tiny", "t")
    with pytest.raises(
        FileFormatError, match=r"gpu_select\.encoder: expected an object with name and fingerprint, got"
    ):
        artifact.check_encoder("any", "f" * 64)


def test_what_shapes_a_selector(folder):
    found = {name: load_selector(folder, algorithm=name).parameters for name in ("knn", "kmeans", "svm", "mlp")}
    assert found == {"knn": {"k": 2}, "kmeans": {"num_clusters": 3}, "svm": {"kernel": "linear"}, "mlp": {}}


@pytest.mark.parametrize(("gammas", "gamma"), [([0.5, 0.5], 0.5), ([2.0, 0.5], [0.5, 2.0])])
def test_the_width_of_an_rbf_kernel_is_that_of_its_classifiers(tmp_path, gammas, gamma):
    rbf = [RBFClassifier("z", np.ones(2), np.eye(2, 3, dtype=np.float32), 0.0, value) for value in gammas]
    write_selector_file(tmp_path / "svm_model.json", SVMFile(["z"], "Linear", 1.0, SVM.linear_classifiers, rbf))
    assert load_selector(tmp_path, algorithm="svm").parameters == {"kernel": "rbf", "gamma": gamma}
