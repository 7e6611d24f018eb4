from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from gpu_select.encoder import Encoder, TokenBatch
from gpu_select.encoder.bert import BertBackbone
from gpu_select.encoder.linear import Linear
from gpu_select.encoder.transformers_backbone import TransformersBackbone

SIZES: dict[str, Any] = {
    "hidden_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 50,
    "vocab_size": 97,
    "max_position_embeddings": 70,
    "initializer_range": 0.3,
}
FAMILY: dict[str, Any] = {
    "bert": transformers.BertConfig(**SIZES),
    "bert of other kinds": transformers.BertConfig(**SIZES, type_vocab_size=3, layer_norm_eps=1e-2),
    "roberta": transformers.RobertaConfig(**SIZES, pad_token_id=1),
    "roberta with another padding token": transformers.RobertaConfig(**SIZES, pad_token_id=2, type_vocab_size=1),
    "xlm-roberta": transformers.XLMRobertaConfig(**SIZES, pad_token_id=1),
}
LENGTHS = [19, 60, 7, 7, 1, 7, 33, 1, 2]
each_pooling = pytest.mark.parametrize("pooling", ["last", "mean", "cls"])


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.double() * other.double()).sum(dim=1).min())


@each_pooling
@pytest.mark.parametrize("name", FAMILY)
def test_packed_vectors_are_those_of_transformers_padded(
    name: str,
    pooling: str,
    model_of: Callable[..., Any],
    encoder_of: Callable[..., Encoder],
    packed: Callable[..., TokenBatch],
    random_rows: Callable[..., Any],
    padded_by_transformers: Callable[..., torch.Tensor],
) -> None:
    model, rows = model_of(FAMILY[name]), random_rows(LENGTHS)
    wanted = padded_by_transformers(model, rows, pooling)
    assert cosine(wanted[1:], wanted[:-1]) < 0.99, "texts must differ for the comparison to mean anything"
    encoder = encoder_of(model, pooling)
    assert type(encoder.backbone) is BertBackbone
    for deterministic in (False, True):
        if deterministic:
            encoder.make_deterministic()
        got = encoder.encode(packed(rows))
        assert got.dtype == torch.float32
        assert cosine(got, wanted) >= 0.999999
        assert cosine(encoder.encode(packed(rows[::-1])), wanted.flip(0)) >= 0.999999


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(
    dtype: torch.dtype,
    model_of: Callable[..., Any],
    encoder_of: Callable[..., Encoder],
    packed: Callable[..., TokenBatch],
    random_rows: Callable[..., Any],
) -> None:
    config = transformers.BertConfig(
        **SIZES | {"hidden_size": 192, "intermediate_size": 400, "initializer_range": 0.02, "num_attention_heads": 6}
    )
    encoder = encoder_of(model_of(config), "mean")
    rows = random_rows(LENGTHS)
    full = encoder.encode(packed(rows))
    half = encoder.to(dtype).encode(packed(rows))
    assert half.dtype == torch.float32
    assert cosine(half, full) >= 0.9999
    assert not half.equal(full)


DIFFERS: dict[str, Any] = {
    "activation": transformers.BertConfig(**SIZES, hidden_act="relu"),
    "activation by tanh": transformers.RobertaConfig(**SIZES, hidden_act="gelu_new", pad_token_id=1),
    "decoder": transformers.BertConfig(**SIZES, is_decoder=True),
    "decoder of RoBERTa": transformers.RobertaConfig(**SIZES, is_decoder=True, pad_token_id=1),
    "another family": transformers.CamembertConfig(**SIZES, pad_token_id=1),
    "a relative of another make": transformers.ElectraConfig(**SIZES, embedding_size=36),
}


@each_pooling
@pytest.mark.parametrize("name", DIFFERS)
def test_what_differs_goes_through_transformers(
    name: str,
    pooling: str,
    model_of: Callable[..., Any],
    encoder_of: Callable[..., Encoder],
    packed: Callable[..., TokenBatch],
    random_rows: Callable[..., Any],
    padded_by_transformers: Callable[..., torch.Tensor],
) -> None:
    model, rows = model_of(DIFFERS[name]), random_rows(LENGTHS)
    assert BertBackbone.of(model, pooling) is None  # type: ignore[arg-type]
    encoder = encoder_of(model, pooling)
    assert type(encoder.backbone) is TransformersBackbone
    assert not encoder.takes_packed
    alone = torch.cat([padded_by_transformers(model, [row], pooling) for row in rows])
    assert cosine(encoder.encode(packed(rows)), alone) >= 0.999999


def changed(model: Any, change: str) -> Any:
    """The same model with weights that BERT has not, or without some that it has."""
    model = copy.deepcopy(model)
    attention = model.encoder.layer[1].attention
    if change == "an adapter":
        attention.output.adapter = torch.nn.Linear(36, 36)
    elif change == "no bias":
        attention.self.query.bias = None
    elif change == "another norm":
        attention.self.norm = torch.nn.LayerNorm(36)
    elif change == "a projection":
        model.embeddings.project = torch.nn.Linear(36, 36)
    elif change == "no token types":
        del model.embeddings.token_type_embeddings
    elif change == "fewer layers":
        del model.encoder.layer[2]
    elif change == "more layers":
        model.encoder.layer.append(copy.deepcopy(model.encoder.layer[0]))
    elif change == "relative positions":
        model.config.position_embedding_type = "relative_key"
    return model


@pytest.mark.parametrize(
    "change",
    [
        "an adapter",
        "no bias",
        "another norm",
        "a projection",
        "no token types",
        "fewer layers",
        "more layers",
        "relative positions",
    ],
)
def test_weights_that_are_not_berts_are_refused(change: str, model_of: Callable[..., Any]) -> None:
    model = model_of(FAMILY["bert"])
    assert BertBackbone.of(changed(model, "nothing"), "cls") is not None
    assert BertBackbone.of(changed(model, change), "cls") is None


def test_tables_that_are_not_learned_and_the_pooler_do_not_matter(model_of: Callable[..., Any]) -> None:
    model = model_of(FAMILY["bert"])
    assert any(name.startswith("pooler.") for name in model.state_dict())
    model.embeddings.register_buffer("position_ids", torch.arange(70)[None], persistent=True)
    assert "embeddings.position_ids" in model.state_dict()
    assert BertBackbone.of(model, "cls") is not None
    model.pooler = None
    assert BertBackbone.of(model, "cls") is not None


def test_weights_are_shared_where_they_can_be(model_of: Callable[..., Any]) -> None:
    model = model_of(FAMILY["bert"])
    backbone = BertBackbone.of(model, "cls")
    assert backbone is not None
    assert backbone.word.data_ptr() == model.embeddings.word_embeddings.weight.data_ptr()
    layer: Any = backbone.layers[0]
    assert layer.down.weight.data_ptr() == model.encoder.layer[0].output.dense.weight.data_ptr()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@each_pooling
def test_only_picked_tokens_go_on_after_the_last_attention(
    pooling: str,
    model_of: Callable[..., Any],
    encoder_of: Callable[..., Encoder],
    packed: Callable[..., TokenBatch],
    random_rows: Callable[..., Any],
) -> None:
    encoder = encoder_of(model_of(FAMILY["bert"]), pooling)
    rows_seen: dict[str, int] = {}
    for name, module in encoder.named_modules():
        if isinstance(module, Linear):
            module.register_forward_hook(
                lambda _, inputs, out, name=name: rows_seen.update({name.removeprefix("backbone.layers."): len(out)})
            )
    encoder.encode(packed(random_rows(LENGTHS)))
    T, B = sum(LENGTHS), len(LENGTHS)
    after = T if pooling == "mean" else B
    parts = ("qkv", "out", "up", "down")
    assert rows_seen == {f"{i}.{part}": after if i == 2 and part != "qkv" else T for i in range(3) for part in parts}
