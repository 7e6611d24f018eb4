"""A random Qwen3 embedding model of the real architecture, and encoders loaded once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpu_select.encoder import Encoder, load_encoder

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
    import torch
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
    import torch

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
