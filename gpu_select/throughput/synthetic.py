"""Embedding models of true shape with random weights, for measuring where no weights are at hand."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from gpu_select import jsonio
from gpu_select.errors import OutputError
from gpu_select.throughput.bpe import END, train_tokenizer
from gpu_select.throughput.corpus import CORPUS_BYTES, read_corpus

__all__ = ["QWEN3_06B", "SMALL", "Shape", "ensure_random_encoder"]

_log = logging.getLogger("gpu_select")

_INITIALIZER_RANGE = 0.02
_SEED = 0


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen3 model, in the words of its config.json."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    """Rows of the embedding table, and entries of the tokenizer where the text at hand gives as many."""
    max_position_embeddings: int = 32768

    def config(self) -> dict[str, object]:
        """What stands in config.json."""
        sizes = asdict(self)
        del sizes["name"]
        return sizes | {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "hidden_act": "silu",
            "initializer_range": _INITIALIZER_RANGE,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000,
            "tie_word_embeddings": True,
            "use_cache": False,
            "use_sliding_window": False,
            "torch_dtype": "bfloat16",
        }


QWEN3_06B = Shape("qwen3-0.6b", 1024, 3072, 28, 16, 8, 128, 151_669)
"""Qwen3-Embedding-0.6B. Source: config.json of Qwen/Qwen3-Embedding-0.6B."""

SMALL = Shape("qwen3-small", 384, 1024, 6, 6, 3, 64, 32_000)
"""A model for CPUs, about as large as MiniLM."""


def ensure_random_encoder(
    folder: str | Path, shape: Shape, *, device: torch.device | str = "cpu", corpus_bytes: int = CORPUS_BYTES
) -> Path:
    """The folder of a random model, which `load_encoder` and sentence-transformers read; made once.

    Weights are drawn from N(0, 0.02) and kept in bfloat16; the same device gives the same ones each time. The tokenizer
    is trained on the text at hand (`read_corpus`).

    Args:
        folder: the model gets a folder of its own in it.
        shape: its sizes.
        device: where the weights are drawn: a GPU takes seconds.
        corpus_bytes: text for the tokenizer.
    Raises:
        OutputError: the folder cannot be written.
        InputError: there is no text to train a tokenizer on.
    """
    target = Path(folder) / f"random-{shape.name}"
    if (target / "config.json").is_file():
        return target
    _log.info("making a model of random weights and training its tokenizer, once: this takes about a minute")
    tokenizer = train_tokenizer(read_corpus(corpus_bytes), shape.vocab_size)
    try:
        with _complete_or_absent(target) as new:
            from safetensors.torch import save_file

            tokenizer.save(str(new / "tokenizer.json"))
            save_file(dict(_weights(shape, torch.device(device))), new / "model.safetensors", {"format": "pt"})
            for name, value in _documents(shape).items():
                (new / name).parent.mkdir(exist_ok=True)
                (new / name).write_bytes(jsonio.dumps(value))
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    return target


@contextlib.contextmanager
def _complete_or_absent(target: Path) -> Iterator[Path]:
    """A new folder that gets its name at the end, so that none is ever found half-written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield new
        if not (target / "config.json").is_file():  # another process may have been quicker
            os.replace(new, target)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _documents(shape: Shape) -> dict[str, object]:
    kinds = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    return {
        "config.json": shape.config(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "pad_token": END,
            "padding_side": "left",
            "model_max_length": shape.max_position_embeddings,
        },
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(kinds)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": shape.hidden_size,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": False,
            "pooling_mode_lasttoken": True,
            "include_prompt": True,
        },
        "2_Normalize/config.json": {},
        "config_sentence_transformers.json": {
            "prompts": {},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    }


def _weights(shape: Shape, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    D, d = shape.hidden_size, shape.head_dim
    q_rows, kv_rows = shape.num_attention_heads * d, shape.num_key_value_heads * d
    matrices = {
        "self_attn.q_proj": (q_rows, D),
        "self_attn.k_proj": (kv_rows, D),
        "self_attn.v_proj": (kv_rows, D),
        "self_attn.o_proj": (D, q_rows),
        "mlp.gate_proj": (shape.intermediate_size, D),
        "mlp.up_proj": (shape.intermediate_size, D),
        "mlp.down_proj": (D, shape.intermediate_size),
    }
    norms = {"input_layernorm": D, "post_attention_layernorm": D, "self_attn.q_norm": d, "self_attn.k_norm": d}
    generator = torch.Generator(device).manual_seed(_SEED)

    def drawn(rows: int, columns: int) -> Tensor:
        values = torch.empty(rows, columns, device=device).normal_(0, _INITIALIZER_RANGE, generator=generator)
        return values.bfloat16().cpu()

    yield "embed_tokens.weight", drawn(shape.vocab_size, D)
    for i in range(shape.num_hidden_layers):
        for name, (rows, columns) in matrices.items():
            yield f"layers.{i}.{name}.weight", drawn(rows, columns)
        for name, length in norms.items():
            yield f"layers.{i}.{name}.weight", torch.ones(length, dtype=torch.bfloat16)
    yield "norm.weight", torch.ones(D, dtype=torch.bfloat16)
