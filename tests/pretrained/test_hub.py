"""The hub's own client against its cache, and against what it would send."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from gpu_select.errors import InputError, OutputError
from gpu_select.pretrained import hub
from gpu_select.router import Router

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXTS = ["what is the number of the city", "explain the law", "solve"]


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache; whatever is not in it cannot be had."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def add_to_cache(hub_cache: Path, hub_id: str, source: Path, commit: str = COMMIT, ref: str = "main") -> None:
    repository = hub_cache / f"models--{hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / ref).write_text(commit)
    shutil.copytree(source, repository / "snapshots" / commit)


def decisions(router: Router) -> Any:
    routes = router.route(TEXTS)
    return routes.models, routes.scores.tolist()


def test_a_saved_router_comes_from_the_hub(routers, saved_once, hub_cache):
    add_to_cache(hub_cache, "someone/router", saved_once / "knn")
    assert decisions(Router.from_pretrained("someone/router", device="cpu")) == decisions(routers["knn"])


def test_a_revision_and_a_cache_of_ones_own(routers, saved_once, hub_cache, tmp_path):
    add_to_cache(hub_cache, "someone/router", saved_once / "knn")
    add_to_cache(hub_cache, "someone/router", saved_once / "svm", "f" * 40, "second")
    add_to_cache(tmp_path / "elsewhere", "someone/router", saved_once / "mlp")
    for options, name in (
        ({}, "knn"),
        ({"revision": "second"}, "svm"),
        ({"revision": "f" * 40, "local_files_only": True}, "svm"),
        ({"cache_dir": tmp_path / "elsewhere"}, "mlp"),
    ):
        router = Router.from_pretrained("someone/router", device="cpu", **options)
        assert decisions(router) == decisions(routers[name])


def test_selector_files_on_the_hub(hub_cache, tmp_path, write_tiny_models, tiny_encoder_path, routers):
    add_to_cache(hub_cache, "someone/selectors", write_tiny_models(tmp_path / "models", {}))
    router = Router.from_pretrained(
        "someone/selectors", encoder=str(tiny_encoder_path), algorithm="kmeans", device="cpu"
    )
    assert decisions(router) == decisions(routers["kmeans"])


def test_a_folder_wins_over_a_hub_id(hub_cache, saved_once, tmp_path, routers):
    add_to_cache(hub_cache, "someone/router", saved_once / "knn")
    shutil.copytree(saved_once / "mlp", tmp_path / "someone" / "router")
    assert decisions(Router.from_pretrained("someone/router", device="cpu")) == decisions(routers["mlp"])


def test_what_is_neither_here_nor_there(hub_cache, monkeypatch):
    with pytest.raises(InputError) as caught:
        Router.from_pretrained("someone/router", device="cpu")
    text = str(caught.value)
    assert text.startswith(
        "pretrained model not found: someone/router is no file or folder here, and was not found on the hub, or the "
        "hub cannot be reached ("
    )
    assert "\n" not in text
    # a path is no hub id, and neither are these
    for name in (Path("someone/router"), "models", "a/b/c", "../router", "x/..", "/a/b", "a b/c", "x" * 200 + "/y"):
        with pytest.raises(InputError, match="pretrained model not found: "):
            Router.from_pretrained(name, device="cpu")


def test_only_files_that_cannot_carry_code_are_asked_for(monkeypatch, tmp_path):
    asked: dict[str, Any] = {}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **options: asked.update(options) or tmp_path)
    hub.download("a/b", hub.HubOptions(revision="x", token="t"))
    assert (asked["revision"], asked["token"], asked["force_download"]) == ("x", "t", False)
    names = [
        "config.json",
        "model.safetensors",
        "encoder/model-00001-of-00002.safetensors",
        "encoder/1_Pooling/config.json",
    ]
    names += ["encoder/vocab.txt", "encoder/tokenizer.json", "knn_model.json.zst", "encoder/sentencepiece.bpe.model"]
    refused = ["pytorch_model.bin", "encoder/modeling.py", "encoder/pytorch_model.bin", "x.pt", "README.md", "a.pkl"]
    wanted = huggingface_hub.utils.filter_repo_objects(names + refused, allow_patterns=asked["allow_patterns"])
    assert list(wanted) == names


class FakeHub:
    """Takes what the client is told to upload."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.refuses: Exception | None = None

    def __call__(self, token: Any = None) -> FakeHub:
        self.calls.append(("token", {"token": token}))
        return self

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))
        if self.refuses is not None:
            raise self.refuses
        return SimpleNamespace(repo_id=repo_id)

    def create_branch(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create_branch", {"repo_id": repo_id, **options}))

    def upload_folder(self, *, folder_path: Path, **options: Any) -> Any:
        self.calls.append(("upload_folder", options))
        shutil.copytree(folder_path, self.folder)
        return SimpleNamespace(commit_url="https://hub/commit/1")


@pytest.fixture
def fake_hub(tmp_path, monkeypatch):
    fake = FakeHub(tmp_path / "uploaded")
    monkeypatch.setattr(huggingface_hub, "HfApi", fake)
    return fake


def test_a_router_goes_to_the_hub_as_it_is_saved(routers, saved_once, fake_hub):
    url = routers["svm"].push_to_hub("someone/router", private=True, token="secret", revision="second")
    assert url == "https://hub/commit/1"
    names = [name for name, _ in fake_hub.calls]
    assert names == ["token", "create_repo", "create_branch", "upload_folder"]
    assert fake_hub.calls[0][1] == {"token": "secret"}
    assert fake_hub.calls[1][1] == {"repo_id": "someone/router", "private": True, "exist_ok": True}
    assert fake_hub.calls[3][1]["revision"] == "second"
    for path in (saved_once / "svm").rglob("*"):
        if path.is_file():
            assert (fake_hub.folder / path.relative_to(saved_once / "svm")).read_bytes() == path.read_bytes()
    assert decisions(Router.from_pretrained(fake_hub.folder, device="cpu")) == decisions(routers["svm"])


def test_a_router_goes_without_its_encoder(routers, fake_hub):
    routers["svm"].push_to_hub("someone/router", include_encoder=False)
    assert sorted(os.listdir(fake_hub.folder)) == ["config.json", "model.safetensors"]


def test_a_hub_that_refuses(routers, fake_hub):
    fake_hub.refuses = RuntimeError("403 Forbidden: you have no right\nRequest ID: 1")
    with pytest.raises(OutputError, match=r"cannot write someone/router on the hub: 403 Forbidden: you have no right$"):
        routers["mlp"].push_to_hub("someone/router", include_encoder=False)
    with pytest.raises(OutputError, match=r"push_to_hub: expected a hub id .organisation/model., got 'router'"):
        routers["mlp"].push_to_hub("router", include_encoder=False)


def test_the_clients_methods_are_as_they_are_called():
    """The fake above stands for these."""
    import inspect

    api = huggingface_hub.HfApi
    for method, arguments in (
        (api.create_repo, {"repo_id", "private", "exist_ok"}),
        (api.create_branch, {"repo_id", "branch", "exist_ok"}),
        (api.upload_folder, {"repo_id", "folder_path", "revision", "commit_message"}),
        (huggingface_hub.snapshot_download, {"revision", "token", "cache_dir", "force_download", "local_files_only"}),
    ):
        assert arguments <= set(inspect.signature(method).parameters)
