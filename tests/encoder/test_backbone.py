from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from gpu_select.encoder import Encoder, embed
from gpu_select.encoder.attention import use_sync_free_attention
from gpu_select.encoder.settings import EncoderSettings

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 97,
    "initializer_range": 0.3,
}
CONFIGS = {
    "bert": transformers.BertConfig(**SIZES),
    "roberta": transformers.RobertaConfig(**SIZES, pad_token_id=1),
    "mpnet": transformers.MPNetConfig(**SIZES),
    "distilbert": transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=97),
    "modernbert": transformers.ModernBertConfig(
        **SIZES, local_attention=4, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2
    ),
    "qwen3": transformers.Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8),
    "mistral": transformers.MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=3),
}


class HostReads(TorchDispatchMode):
    """Notes every operation that hands a tensor's value to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(word in str(func) for word in ("_local_scalar_dense", "nonzero", "aten.equal")):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class StandInTokenizer:
    def __init__(self, pooling: Any) -> None:
        self.settings = EncoderSettings(pooling=pooling, prefix="", max_length=64)


def encoder_of(model: Any, pooling: str) -> Encoder:
    tokenizer: Any = StandInTokenizer(pooling)
    return Encoder(model, tokenizer, name="x", fingerprint="x", dim=32).eval().requires_grad_(False)


def padded(rows: list[list[int]], side: str, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = [[pad] * (width - len(row)) + row if side == "left" else row + [pad] * (width - len(row)) for row in rows]
    ones = [[1] * len(row) for row in rows]
    mask = [[0] * (width - len(o)) + o if side == "left" else o + [0] * (width - len(o)) for o in ones]
    return torch.tensor(ids), torch.tensor(mask)


def test_the_spy_sees_what_transformers_does_by_itself() -> None:
    model = transformers.AutoModel.from_config(copy.deepcopy(CONFIGS["bert"])).eval()
    ids, mask = padded([[5, 6, 7], [8]], "right", 0)
    with HostReads() as spy, torch.no_grad():
        model(input_ids=ids, attention_mask=mask)
    assert spy.seen


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_batch_without_host_reads_gives_what_the_plain_model_gives_row_by_row(
    architecture: str, pooling: str, side: str
) -> None:
    config = copy.deepcopy(CONFIGS[architecture])
    if hasattr(config, "use_cache"):
        config.use_cache = False
    torch.manual_seed(3)
    plain = transformers.AutoModel.from_config(copy.deepcopy(config)).eval()
    model = transformers.AutoModel.from_config(copy.deepcopy(config)).eval()
    model.load_state_dict(plain.state_dict())
    use_sync_free_attention(model)
    encoder = encoder_of(model, pooling)
    generator = np.random.default_rng(0)
    rows = [generator.integers(3, 97, size=n).tolist() for n in (9, 1, 4, 9, 2)]
    ids, mask = padded(rows, side, config.pad_token_id or 0)
    with HostReads() as spy:
        vectors = encoder(ids, mask)
    assert spy.seen == []
    assert vectors.dtype == torch.float32
    for row, vector in zip(rows, vectors, strict=True):
        with torch.no_grad():
            hidden = plain(input_ids=torch.tensor([row])).last_hidden_state[0].double()
        expected = {"last": hidden[-1], "mean": hidden.mean(dim=0), "cls": hidden[0]}[pooling]
        torch.testing.assert_close(vector.double(), expected / expected.norm(), atol=2e-5, rtol=0)


def test_what_stands_in_the_padding_makes_no_difference(tiny_encoder: Encoder, tiny_qwen3: Encoder) -> None:
    for encoder in (tiny_encoder, tiny_qwen3):
        ids, mask = padded([[5, 6, 7, 8, 9], [10, 11]], "right", 0)
        other = torch.where(mask.bool(), ids, 33)
        torch.testing.assert_close(encoder(ids, mask), encoder(other, mask.bool()), atol=1e-6, rtol=0)


def test_forward_can_be_exported(tiny_encoder: Encoder, tiny_qwen3: Encoder) -> None:
    for encoder in (tiny_encoder, tiny_qwen3):
        ids, mask = padded([[5, 6, 7, 8, 9], [10, 11]], "right", 0)
        program = torch.export.export(encoder, (ids, mask))
        torch.testing.assert_close(program.module()(ids, mask), encoder(ids, mask))


words = st.lists(
    st.text(max_size=40) | st.sampled_from(["what is x", "solve 3x + 5 = 20 " * 9]), min_size=1, max_size=8
)


@settings(max_examples=12)
@given(words)
def test_a_batch_gives_what_each_text_gives_alone(tiny_encoder: Encoder, tiny_qwen3: Encoder, texts: list[str]) -> None:
    for encoder in (tiny_encoder, tiny_qwen3):
        together = embed(encoder, texts, token_budget=10_000).vectors
        alone = torch.cat([embed(encoder, [text]).vectors for text in texts])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
