"""A random Qwen3 embedding model of the real architecture, encoders loaded once, and models without any files."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpu_select.encoder import Encoder, TokenBatch, Tokenized, load_encoder, pack
from gpu_select.encoder.backbone import backbone_of
from gpu_select.encoder.settings import EncoderSettings

TEXTS = (
    "What is the capital of France?",
    "",
    "x",
    "Solve for x: 3x + 5 = 20.",
    "Grüße aus München, 北京 and 😀!",
    "line one\nline two\ttabbed",
    "which disease is the most likely one? " * 40,
    "[SEP] [CLS] <|endoftext|> [PAD]",
    "  spaces   inside  ",
    "1234567890 " * 3,
)


def _write_tiny_qwen3(folder: Path, *, padding_side: str = "right") -> Path:
    import tokenizers
    import transformers
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    end = "<|endoftext|>"
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[end],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    # as in Qwen3-Embedding: the end token closes every text, and is the padding token as well
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, 0)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, pad_token=end, model_max_length=131072, padding_side=padding_side
    ).save_pretrained(folder)
    config = transformers.Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        max_position_embeddings=128,
        initializer_range=0.2,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = transformers.Qwen3Model(config)
    model.save_pretrained(folder)
    kinds = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    files: dict[str, object] = {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(kinds)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": 64,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": False,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "pooling_mode_weightedmean_tokens": False,
            "pooling_mode_lasttoken": True,
            "include_prompt": True,
        },
        "2_Normalize/config.json": {},
        "config_sentence_transformers.json": {
            "prompts": {"query": "Instruct: Given a web search query, retrieve passages\nQuery:", "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    }
    for name, value in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On models this small, threads that wait for each other cost far more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Short, long, empty, multilingual and token-like texts."""
    return list(TEXTS)


@pytest.fixture(scope="session")
def write_tiny_qwen3() -> Callable[..., Path]:
    """Call with a folder and padding_side=."""
    return _write_tiny_qwen3


@pytest.fixture(scope="session")
def tiny_qwen3_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_tiny_qwen3(tmp_path_factory.mktemp("encoders") / "tiny-qwen3")


@pytest.fixture(scope="session")
def tiny_encoder(tiny_encoder_path: Path) -> Encoder:
    return load_encoder(str(tiny_encoder_path))


@pytest.fixture(scope="session")
def tiny_qwen3(tiny_qwen3_path: Path) -> Encoder:
    return load_encoder(str(tiny_qwen3_path))


class StandInTokenizer:
    """What an encoder of ready ids needs of its tokenizer."""

    pad_id = 0

    def __init__(self, pooling: Any) -> None:
        self.settings = EncoderSettings(pooling=pooling, prefix="", max_length=512)


def _model_of(config: Any, seed: int = 3) -> Any:
    import transformers

    config = copy.deepcopy(config)
    config.use_cache = False
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModel.from_config(config).eval().requires_grad_(False)
        for parameter in model.parameters():
            if parameter.ndim == 1:  # biases of 0 and norms of 1 would hide each other's absence
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


@pytest.fixture(scope="session")
def model_of() -> Callable[..., Any]:
    """Call with a config of transformers (and seed=): a random model, none of whose weights are 0 or 1."""
    return _model_of


def _encoder_of(model: Any, pooling: str) -> Encoder:
    tokenizer: Any = StandInTokenizer(pooling)
    backbone: Any = backbone_of(copy.deepcopy(model), pooling)  # type: ignore[arg-type]
    encoder = Encoder(backbone, tokenizer, name="x", fingerprint="x", dim=model.config.hidden_size)
    return encoder.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def encoder_of() -> Callable[..., Encoder]:
    """Call with a model of transformers, which stays as it is, and a pooling: an encoder of ready ids."""
    return _encoder_of


def _tokenized_of(rows: list[list[int]]) -> Tokenized:
    ids = np.array([token for row in rows for token in row], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return Tokenized(ids, offsets, np.zeros(len(rows), dtype=np.bool_))


@pytest.fixture(scope="session")
def tokenized_of() -> Callable[[list[list[int]]], Tokenized]:
    """Call with the ids of each text."""
    return _tokenized_of


@pytest.fixture(scope="session")
def packed() -> Callable[[list[list[int]]], TokenBatch]:
    """Call with the ids of each text: one batch of them all, in their order, on the CPU."""
    return lambda rows: pack(_tokenized_of(rows), np.arange(len(rows)), torch.device("cpu"))


def _random_rows(lengths: list[int], seed: int = 0, vocabulary: int = 97) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(3, vocabulary, size=n).tolist() for n in lengths]


@pytest.fixture(scope="session")
def random_rows() -> Callable[..., list[list[int]]]:
    """Call with lengths (and seed=, vocabulary=): random ids from 3 on for each text."""
    return _random_rows


@torch.no_grad()
def _padded_by_transformers(model: Any, rows: list[list[int]], pooling: str) -> torch.Tensor:
    width, pad = max(map(len, rows)), model.config.pad_token_id or 0
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state.double()
    texts = [hidden[i, : len(row)] for i, row in enumerate(rows)]
    pooled = [{"last": text[-1], "mean": text.mean(dim=0), "cls": text[0]}[pooling] for text in texts]
    return torch.nn.functional.normalize(torch.stack(pooled), dim=1)


@pytest.fixture(scope="session")
def padded_by_transformers() -> Callable[..., torch.Tensor]:
    """Call with a model, ids of each text and a pooling: the unit vectors that transformers gives, in float64."""
    return _padded_by_transformers
