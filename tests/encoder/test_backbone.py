from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from gpu_select.encoder import Encoder, TokenBatch, backbone, embed
from gpu_select.encoder.bert import BertBackbone
from gpu_select.encoder.linear import Linear
from gpu_select.encoder.qwen3 import Qwen3Backbone
from gpu_select.encoder.transformers_backbone import TransformersBackbone
from gpu_select.errors import ConfigError

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
    "xlm-roberta": transformers.XLMRobertaConfig(**SIZES, pad_token_id=1),
    "mpnet": transformers.MPNetConfig(**SIZES),
    "distilbert": transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=97),
    "modernbert": transformers.ModernBertConfig(
        **SIZES, local_attention=4, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2
    ),
    "qwen3": transformers.Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8),
    "mistral": transformers.MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=3),
}


PACKED: dict[str, type] = {
    "bert": BertBackbone,
    "roberta": BertBackbone,
    "xlm-roberta": BertBackbone,
    "qwen3": Qwen3Backbone,
}
"""Those that have a backbone of ours."""

READS = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "unique", "aten.equal", "lift_fresh")
"""A number read by the host, sizes that depend on numbers, a copy of numbers from the host."""


class HostReads(TorchDispatchMode):
    """Notes every operation that hands a tensor's value to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(word in str(func) for word in READS):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


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


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_batch_without_host_reads_gives_what_the_plain_model_gives_row_by_row(
    architecture: str,
    pooling: str,
    model_of: Callable[..., Any],
    encoder_of: Callable[..., Encoder],
    packed: Callable[..., TokenBatch],
    random_rows: Callable[..., Any],
    padded_by_transformers: Callable[..., torch.Tensor],
) -> None:
    plain = model_of(CONFIGS[architecture])
    encoder = encoder_of(plain, pooling)
    assert type(encoder.backbone) is PACKED.get(architecture, TransformersBackbone)
    assert encoder.takes_packed == (architecture in PACKED)
    rows = random_rows([9, 1, 4, 9, 2])
    expected = torch.cat([padded_by_transformers(plain, [row], pooling) for row in rows])
    batch, domain = packed(rows), torch.tensor([0, 13, 3, 3, 1])
    sides = [padded(rows, side, plain.config.pad_token_id or 0) for side in ("left", "right")]
    with HostReads() as spy:
        vectors = [encoder(*side) for side in sides]
        vectors.append(encoder.encode(batch))
        features = encoder.encode(batch, domain, n_domains=14)
    assert spy.seen == []
    for got in vectors:
        assert (got.shape, got.dtype) == ((5, 32), torch.float32)
        torch.testing.assert_close(got.double(), expected, atol=2e-5, rtol=0)
    assert features[:, :32].equal(vectors[-1])
    assert features[:, 32:].equal(torch.eye(14)[domain])


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
@pytest.mark.parametrize("architecture", PACKED)
def test_encode_needs_no_number_that_is_on_the_device(
    architecture: str,
    pooling: str,
    deterministic: bool,
    model_of: Callable[..., Any],
    encoder_of: Callable[..., Encoder],
    packed: Callable[..., TokenBatch],
) -> None:
    """The meta device has no numbers, so that any wait for one, or a copy to the host, is an error."""
    encoder = encoder_of(model_of(CONFIGS[architecture]), pooling).to("meta")
    if deterministic:
        encoder.make_deterministic()
    batch = packed([[5, 6, 7], [8, 9, 10], [11]])
    there = {name: getattr(batch, name).to("meta") for name in ("ids_T", "positions_T", "offsets_B1", "tag_B")}
    nowhere = TokenBatch(lengths=batch.lengths, **there)
    with pytest.raises((RuntimeError, NotImplementedError)):
        nowhere.ids_T.tolist()
    assert encoder.encode(nowhere, nowhere.tag_B.long(), n_domains=14).shape == (3, 32 + 14)


def test_what_stands_in_the_padding_makes_no_difference(tiny_encoder: Encoder, tiny_qwen3: Encoder) -> None:
    for encoder in (tiny_encoder, tiny_qwen3):
        ids, mask = padded([[5, 6, 7, 8, 9], [10, 11]], "right", 0)
        other = torch.where(mask.bool(), ids, 33)
        torch.testing.assert_close(encoder(ids, mask), encoder(other, mask.bool()), atol=1e-6, rtol=0)


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_one_exported_program_takes_every_shape(
    architecture: str, pooling: str, model_of: Callable[..., Any], encoder_of: Callable[..., Encoder]
) -> None:
    counts = torch.__version__ >= "2.13"
    if architecture == "mistral" and not counts:
        pytest.skip("torch 2.11 treats a length of 1 apart in attention of grouped heads")
    encoder = encoder_of(model_of(CONFIGS[architecture]), pooling)
    sizes = {0: torch.export.Dim("batch", min=1, max=4096), 1: torch.export.Dim("length", min=1, max=60)}
    example = torch.randint(5, 90, (5, 7)), torch.ones(5, 7, dtype=torch.int64)
    with torch.no_grad():
        program = torch.export.export(encoder, example, dynamic_shapes=(sizes, sizes))
    # how many tokens there are, the program finds out, where torch can compile that
    assert ("nonzero" in str(program.graph)) == (architecture in PACKED and counts)
    run = program.module()
    for seed, (B, T) in enumerate([(1, 1), (1, 9), (2, 1), (2, 5), (7, 30), (64, 12), (3, 60)]):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(5, 90, (B, T), generator=generator)
        mask = torch.arange(T) < torch.randint(1, T + 1, (B, 1), generator=generator)
        for turned in (mask, mask.flip(1)):
            torch.testing.assert_close(run(ids, turned.long()), encoder(ids, turned), atol=2e-5, rtol=0)


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


def test_compiled_layers_give_the_same_vectors(
    model_of: Callable[..., Any],
    encoder_of: Callable[..., Encoder],
    packed: Callable[..., TokenBatch],
    random_rows: Callable[..., Any],
) -> None:
    for architecture in ("bert", "qwen3"):
        for pooling in ("last", "mean"):
            encoder = encoder_of(model_of(CONFIGS[architecture]), pooling)
            batches = [packed(random_rows(lengths)) for lengths in ([9, 9, 4, 1], [30, 2], [3])]
            expected = [encoder.encode(batch) for batch in batches]
            torch._dynamo.reset()
            encoder.compile_layers(backend="eager", fullgraph=True)
            for batch, wanted in zip(batches, expected, strict=True):
                torch.testing.assert_close(encoder.encode(batch), wanted, atol=1e-5, rtol=0)
    torch._dynamo.reset()
    other = encoder_of(model_of(CONFIGS["mpnet"]), "mean")
    with pytest.raises(ConfigError, match="compile: expected an encoder of the BERT or Qwen3 family, got 'x'"):
        other.compile_layers()


def test_only_attention_over_variable_lengths_can_be_recorded(
    model_of: Callable[..., Any], encoder_of: Callable[..., Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[torch.device, torch.dtype, int]] = []
    monkeypatch.setattr(backbone, "takes_varlen", lambda *question: bool(asked.append(question) or True))
    encoder = encoder_of(model_of(CONFIGS["qwen3"]), "last").to(torch.bfloat16)
    assert encoder.can_be_recorded
    assert asked == [(torch.device("cpu"), torch.bfloat16, 8)]
    assert not encoder_of(model_of(CONFIGS["mpnet"]), "last").can_be_recorded
    monkeypatch.undo()
    assert not encoder.can_be_recorded


def test_make_deterministic_fixes_the_shape_of_every_product(
    model_of: Callable[..., Any],
    encoder_of: Callable[..., Encoder],
    packed: Callable[..., TokenBatch],
    random_rows: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = encoder_of(model_of(CONFIGS["qwen3"]), "last")
    assert (encoder.deterministic, encoder.precision) == (False, "float32")
    before = encoder.encode(packed(random_rows([9, 4])))
    encoder.make_deterministic()
    assert (encoder.deterministic, encoder.precision) == (True, "float32-deterministic")
    shapes: set[int] = set()
    product = Linear._product
    monkeypatch.setattr(Linear, "_product", lambda self, x, *rest: shapes.add(len(x)) or product(self, x, *rest))
    torch.testing.assert_close(encoder.encode(packed(random_rows([9, 4]))), before, atol=1e-5, rtol=0)
    encoder.encode(packed(random_rows([300, 100, 1])))
    assert shapes == {256}
