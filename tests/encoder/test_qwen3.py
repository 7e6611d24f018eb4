from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from gpu_select.encoder import Encoder, TokenBatch
from gpu_select.encoder.linear import Linear
from gpu_select.encoder.qwen3 import Qwen3Backbone
from gpu_select.encoder.transformers_backbone import TransformersBackbone

SIZES: dict[str, Any] = {
    "hidden_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "intermediate_size": 50,
    "vocab_size": 97,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}


def qwen3(**changes: Any) -> Any:
    return transformers.Qwen3Config(**SIZES | changes)


FAMILY: dict[str, Any] = {
    "grouped heads": qwen3(),
    "as many heads": qwen3(num_key_value_heads=4),
    "one key": qwen3(num_key_value_heads=1),
    "another base": qwen3(rope_parameters={"rope_type": "default", "rope_theta": 100.0}),
    "another epsilon": qwen3(rms_norm_eps=0.1),
}
LENGTHS = [19, 90, 7, 7, 1, 7, 33, 1, 2]
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
    assert type(encoder.backbone) is Qwen3Backbone
    for deterministic in (False, True):
        if deterministic:
            encoder.make_deterministic()
        got = encoder.encode(packed(rows))
        assert got.dtype == torch.float32
        assert cosine(got, wanted) >= 0.999999
        assert cosine(encoder.encode(packed(rows[::-1])), wanted.flip(0)) >= 0.999999


@each_pooling
def test_bfloat16_stays_near_float32(
    pooling: str,
    model_of: Callable[..., Any],
    encoder_of: Callable[..., Encoder],
    packed: Callable[..., TokenBatch],
    random_rows: Callable[..., Any],
) -> None:
    config = qwen3(
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=5,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        initializer_range=0.02,
    )
    encoder = encoder_of(model_of(config), pooling)
    rows = random_rows(LENGTHS)
    full = encoder.encode(packed(rows))
    half = encoder.to(torch.bfloat16).encode(packed(rows))
    assert encoder.dtype == torch.bfloat16
    assert half.dtype == torch.float32
    assert cosine(half, full) >= 0.9999
    assert not half.equal(full)


def test_frequencies_stay_in_float32(model_of: Callable[..., Any], encoder_of: Callable[..., Encoder]) -> None:
    """In bfloat16, 1001 and 1003 would be the same position."""
    encoder = encoder_of(model_of(FAMILY["grouped heads"]), "last")
    before = encoder.backbone.frequencies
    assert isinstance(before, torch.Tensor)
    for move in (torch.bfloat16, torch.float64, "cpu"):
        after = encoder.to(move).backbone.frequencies
        assert isinstance(after, torch.Tensor)
        assert after.dtype == torch.float32
        assert after.equal(before)
    assert encoder.to("meta").backbone.frequencies.device.type == "meta"  # type: ignore[union-attr]


YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 2.0, "original_max_position_embeddings": 64}
DIFFERS: dict[str, Any] = {
    "activation": qwen3(hidden_act="gelu"),
    "sliding window": qwen3(use_sliding_window=True, sliding_window=3, max_window_layers=1),
    "both directions": qwen3(is_causal=False),
    "yarn": qwen3(rope_parameters=YARN),
    "linear positions": qwen3(rope_parameters={"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}),
    "dynamic positions": qwen3(
        max_position_embeddings=64, rope_parameters={"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    ),
    "biases": qwen3(attention_bias=True),
    "one layer": qwen3(num_hidden_layers=1),
    "another family": transformers.Qwen2Config(
        **{key: value for key, value in SIZES.items() if key != "head_dim"} | {"hidden_size": 48}
    ),
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
    model, rows = model_of(DIFFERS[name]), random_rows([n for n in LENGTHS if n < 60])
    assert Qwen3Backbone.of(model, pooling) is None  # type: ignore[arg-type]
    encoder = encoder_of(model, pooling)
    assert type(encoder.backbone) is TransformersBackbone
    assert not encoder.takes_packed
    alone = torch.cat([padded_by_transformers(model, [row], pooling) for row in rows])
    assert cosine(encoder.encode(packed(rows)), alone) >= 0.999999


def changed(model: Any, change: str) -> Any:
    """The same model with weights that Qwen3 has not, or without some that it has."""
    model = copy.deepcopy(model)
    layer = model.layers[1]
    if change == "an adapter":
        layer.mlp.adapter = torch.nn.Linear(40, 40)
    elif change == "a bias":
        layer.mlp.down_proj.bias = torch.nn.Parameter(torch.zeros(40))
    elif change == "no norm of keys":
        del layer.self_attn.k_norm
    elif change == "fewer layers":
        del model.layers[2]
    elif change == "part of the head turns":
        model.rotary_emb.inv_freq = model.rotary_emb.inv_freq[:3]
    elif change == "scaled attention":
        model.rotary_emb.attention_scaling = 1.2
    return model


@pytest.mark.parametrize(
    "change",
    ["an adapter", "a bias", "no norm of keys", "fewer layers", "part of the head turns", "scaled attention"],
)
def test_what_is_not_qwen3s_is_refused(change: str, model_of: Callable[..., Any]) -> None:
    model = model_of(FAMILY["grouped heads"])
    assert Qwen3Backbone.of(changed(model, "nothing"), "last") is not None
    assert Qwen3Backbone.of(changed(model, change), "last") is None


@each_pooling
def test_only_last_tokens_go_on_after_the_last_attention(
    pooling: str,
    model_of: Callable[..., Any],
    encoder_of: Callable[..., Encoder],
    packed: Callable[..., TokenBatch],
    random_rows: Callable[..., Any],
) -> None:
    encoder = encoder_of(model_of(FAMILY["grouped heads"]), pooling)
    rows_seen: dict[str, int] = {}
    for name, module in encoder.named_modules():
        if isinstance(module, Linear):
            module.register_forward_hook(
                lambda _, inputs, out, name=name: rows_seen.update({name.removeprefix("backbone.layers."): len(out)})
            )
    encoder.encode(packed(random_rows(LENGTHS)))
    T, B = sum(LENGTHS), len(LENGTHS)
    wanted = {f"{i}.{part}": T for i in range(3) for part in ("qkv", "out", "gate_up", "down")}
    if pooling == "last":
        del wanted["2.qkv"]
        wanted |= {"2.kv": T, "2.q": B, "2.out": B, "2.gate_up": B, "2.down": B}
    assert rows_seen == wanted


def test_ids_and_positions_are_left_as_they_are(
    model_of: Callable[..., Any],
    encoder_of: Callable[..., Encoder],
    packed: Callable[..., TokenBatch],
    random_rows: Callable[..., Any],
) -> None:
    """Norms write over their inputs, which must never be the weights or the batch."""
    encoder = encoder_of(model_of(FAMILY["grouped heads"]), "last")
    batch = packed(random_rows(LENGTHS))
    weights = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    first = encoder.encode(batch)
    assert encoder.encode(batch).equal(first)
    assert all(tensor.equal(weights[name]) for name, tensor in encoder.state_dict().items())
