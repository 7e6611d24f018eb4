"""BERT and its relatives over packed tokens."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpu_select.encoder.layouts import Layout
from gpu_select.encoder.linear import Linear
from gpu_select.encoder.registry import Pooling

__all__ = ["BertBackbone"]

_LAYER_NORM_PARTS = ("attention.output", "output")
_DENSE_PARTS = (
    *(f"attention.self.{part}" for part in ("query", "key", "value")),
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


class _Norm(nn.Module):
    """Layer normalisation."""

    def __init__(self, weight_D: Tensor, bias_D: Tensor, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_D.detach(), requires_grad=False)
        self.bias = nn.Parameter(bias_D.detach(), requires_grad=False)
        self.eps = eps

    def forward(self, x_ND: Tensor) -> Tensor:
        return functional.layer_norm(x_ND, (x_ND.shape[1],), self.weight, self.bias, self.eps)


class _Layer(nn.Module):
    """Attention and feed-forward network, each with a normalised sum behind it."""

    def __init__(self, weights: dict[str, Tensor], prefix: str, n_heads: int, eps: float) -> None:
        super().__init__()
        dense = {part: (weights[f"{prefix}{part}.weight"], weights[f"{prefix}{part}.bias"]) for part in _DENSE_PARTS}
        qkv = [dense[f"attention.self.{part}"] for part in ("query", "key", "value")]
        self.qkv = Linear(torch.cat([weight for weight, _ in qkv]), torch.cat([bias for _, bias in qkv]))
        self.out = Linear(*dense["attention.output.dense"])
        self.up = Linear(*dense["intermediate.dense"])
        self.down = Linear(*dense["output.dense"])
        self.attention_norm, self.norm = (
            _Norm(weights[f"{prefix}{part}.LayerNorm.weight"], weights[f"{prefix}{part}.LayerNorm.bias"], eps)
            for part in _LAYER_NORM_PARTS
        )
        self.n_heads = n_heads

    def project(self, x_ND: Tensor) -> tuple[Tensor, ...]:
        """(N, H, d) queries, keys and values."""
        qkv: Tensor = self.qkv(x_ND)
        return torch.unbind(torch.unflatten(qkv, 1, (3, self.n_heads, -1)), 1)

    def finish(self, context_NHd: Tensor, x_ND: Tensor) -> Tensor:
        """What follows attention."""
        x_ND = self.attention_norm(self.out(context_NHd.flatten(1), add_NO=x_ND))
        out_ND: Tensor = self.norm(self.down(self.up(x_ND, gelu=True), add_NO=x_ND))
        return out_ND


class BertBackbone(nn.Module):
    """The encoder of BERT, RoBERTa and XLM-RoBERTa, with the weights of the model of transformers.

    Source: Devlin et al. (2019), arXiv:1810.04805.
    """

    def __init__(self, weights: dict[str, Tensor], config: Any, pooling: Pooling) -> None:
        super().__init__()
        self.word = nn.Parameter(weights["embeddings.word_embeddings.weight"].detach(), requires_grad=False)
        self.position = nn.Parameter(weights["embeddings.position_embeddings.weight"].detach(), requires_grad=False)
        kind_D = weights["embeddings.token_type_embeddings.weight"][0]
        self.kind = nn.Parameter(kind_D.detach().clone(), requires_grad=False)
        # RoBERTa numbers positions from behind the padding token
        self.first_position = 0 if config.model_type == "bert" else config.pad_token_id + 1
        eps, heads = config.layer_norm_eps, config.num_attention_heads
        norm = "embeddings.LayerNorm."
        self.embedding_norm = _Norm(weights[norm + "weight"], weights[norm + "bias"], eps)
        self.layers = nn.ModuleList(
            _Layer(weights, f"encoder.layer.{i}.", heads, eps) for i in range(config.num_hidden_layers)
        )
        self.pooling, self.head_dim = pooling, config.hidden_size // heads

    @classmethod
    def of(cls, model: Any, pooling: Pooling) -> Self | None:
        """The same model over packed tokens; None for one that is not of this family or differs from it."""
        config = model.config
        if config.model_type not in ("bert", "roberta", "xlm-roberta") or config.hidden_act != "gelu":
            return None
        if getattr(config, "is_decoder", False) or getattr(config, "position_embedding_type", None) not in (
            None,
            "absolute",
        ):
            return None
        weights = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("pooler.")}
        return cls(weights, config, pooling) if _names(config.num_hidden_layers) == _learned(weights) else None

    def forward(self, ids_N: Tensor, positions_N: Tensor, layout: Layout) -> Tensor:
        """Token vectors, or only the one of each text that pooling takes.

        Args:
            ids_N: (N,) tokens.
            positions_N: (N,) each token's place in its text, from 0.
            layout: where the B texts are.
        Returns:
            All (N, D) for the pooling `mean`, else (B, D).
        """
        x_ND: Tensor = functional.embedding(ids_N, self.word) + self.kind
        x_ND = self.embedding_norm(x_ND + functional.embedding(positions_N + self.first_position, self.position))
        layers: Any = self.layers
        for layer in layers:
            q, k, v = layer.project(x_ND)
            if layer is layers[-1] and self.pooling != "mean":
                q, x_ND = layout.pick(q, self.pooling), layout.pick(x_ND, self.pooling)
                context = layout.attend_once(q, k, v)
            else:
                context = layout.attend(q, k, v, causal=False)
            x_ND = layer.finish(context, x_ND)
        return x_ND


def _learned(weights: dict[str, Tensor]) -> set[str]:
    # tables of numbers that are not learned come and go with the version of transformers
    return {name for name in weights if not name.endswith(("position_ids", "token_type_ids"))}


def _names(n_layers: int) -> set[str]:
    tables = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    names = {f"embeddings.{table}.weight" for table in tables}
    parts = [f"{part}.LayerNorm" for part in _LAYER_NORM_PARTS] + list(_DENSE_PARTS)
    modules = ["embeddings.LayerNorm", *(f"encoder.layer.{i}.{part}" for i in range(n_layers) for part in parts)]
    return names | {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}
