"""Qwen3 over packed tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from gpu_select_kernels.rms_norm import rms_norm
from gpu_select_kernels.rope import qk_norm_rope
from gpu_select_kernels.rowwise import rowwise
from gpu_select_kernels.swiglu import swiglu
from torch import Tensor, nn
from torch.nn import functional

from gpu_select.encoder.layouts import Layout
from gpu_select.encoder.linear import Linear
from gpu_select.encoder.registry import Pooling

__all__ = ["Qwen3Backbone"]

_NORMS = ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")
_DENSE = (
    *(f"self_attn.{part}_proj" for part in "qkvo"),
    *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
)


class _Layer(nn.Module):
    """Attention over normalised and rotated heads, then a gated feed-forward network."""

    def __init__(self, weights: dict[str, Tensor], prefix: str, config: Any, *, last: bool) -> None:
        super().__init__()
        q, k, v, out, gate, up, down = (weights[f"{prefix}{part}.weight"] for part in _DENSE)
        if last:  # its queries are few
            self.q, self.kv = Linear(q), Linear(torch.cat([k, v]))
        else:
            self.qkv = Linear(torch.cat([q, k, v]))
        self.out, self.gate_up, self.down = Linear(out), Linear(torch.cat([gate, up])), Linear(down)
        self.norm, self.mlp_norm, self.q_norm, self.k_norm = (
            nn.Parameter(weights[f"{prefix}{part}.weight"].detach(), requires_grad=False) for part in _NORMS
        )
        self.heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim, self.eps = config.head_dim, config.rms_norm_eps

    def project(self, x_ND: Tensor, residual_ND: Tensor | None, cos_Nd: Tensor, sin_Nd: Tensor) -> tuple[Tensor, ...]:
        """Queries (N, H, d), keys and values (N, G, d), and the sum x + residual that goes on."""
        normed_ND, residual_ND = rms_norm(x_ND, self.norm, self.eps, residual_ND, inplace=residual_ND is not None)
        return *self._rotated(self.qkv(normed_ND), *self.heads, cos_Nd, sin_Nd), residual_ND

    def project_last(
        self, x_ND: Tensor, residual_ND: Tensor, cos_Nd: Tensor, sin_Nd: Tensor, layout: Layout
    ) -> tuple[Tensor, ...]:
        """As `project`, but with one query a text: (B, H, d), and the sum (B, D)."""
        normed_ND, residual_ND = rms_norm(x_ND, self.norm, self.eps, residual_ND, inplace=True)
        n_heads, n_groups = self.heads
        _, k_NGd, v_NGd = self._rotated(self.kv(normed_ND), 0, n_groups, cos_Nd, sin_Nd)
        cos_Bd, sin_Bd = layout.pick(cos_Nd, "last"), layout.pick(sin_Nd, "last")
        q_BHd, _, _ = self._rotated(self.q(layout.pick(normed_ND, "last")), n_heads, 0, cos_Bd, sin_Bd)
        return q_BHd, k_NGd, v_NGd, layout.pick(residual_ND, "last")

    def finish(self, context_NHd: Tensor, residual_ND: Tensor) -> tuple[Tensor, Tensor]:
        """What follows attention: the network's output, and the sum that it still has to be added to."""
        attended_ND = self.out(context_NHd.flatten(1))
        normed_ND, residual_ND = rms_norm(attended_ND, self.mlp_norm, self.eps, residual_ND, inplace=True)
        gate_up_NE: Tensor = self.gate_up(normed_ND)
        gated_NI = swiglu(gate_up_NE) if self.gate_up.tile is None else rowwise(swiglu, gate_up_NE)
        return self.down(gated_NI), residual_ND

    def _rotated(self, projected: Tensor, n_q: int, n_kv: int, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        return qk_norm_rope(projected, self.q_norm, self.k_norm, cos, sin, n_q, n_kv, self.head_dim, self.eps)


class Qwen3Backbone(nn.Module):
    """Qwen3's decoder without its head, with the weights of the model of transformers.

    Source: Qwen team (2025), arXiv:2505.09388.
    """

    frequencies: Tensor

    def __init__(self, weights: dict[str, Tensor], model: Any, pooling: Pooling) -> None:
        super().__init__()
        config = model.config
        self.word = nn.Parameter(weights["embed_tokens.weight"].detach(), requires_grad=False)
        self.norm = nn.Parameter(weights["norm.weight"].detach(), requires_grad=False)
        last = config.num_hidden_layers - 1
        self.layers = nn.ModuleList(
            _Layer(weights, f"layers.{i}.", config, last=i == last and pooling == "last") for i in range(last + 1)
        )
        self.register_buffer("frequencies", model.rotary_emb.inv_freq.detach().float())
        self.pooling, self.eps, self.head_dim = pooling, config.rms_norm_eps, config.head_dim

    @classmethod
    def of(cls, model: Any, pooling: Pooling) -> Self | None:
        """The same model over packed tokens; None for one that is not of this family or differs from it."""
        config = model.config
        if config.model_type != "qwen3" or config.hidden_act != "silu" or config.num_hidden_layers < 2:
            return None
        if set(config.layer_types) != {"full_attention"} or getattr(config, "is_causal", True) is False:
            return None
        rotary = model.rotary_emb
        if (
            rotary.rope_type != "default"
            or rotary.attention_scaling != 1
            or 2 * len(rotary.inv_freq) != config.head_dim
        ):
            return None
        weights = model.state_dict()
        modules = [f"layers.{i}.{part}" for i in range(config.num_hidden_layers) for part in (*_NORMS, *_DENSE)]
        if {f"{module}.weight" for module in ["embed_tokens", "norm", *modules]} != set(weights):
            return None
        return cls(weights, model, pooling)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        frequencies = self.frequencies
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # whatever the weights' dtype: rounded to bfloat16, they would be off by whole radians at position 1000
        self.frequencies = frequencies.to(self.frequencies.device)
        return self

    def forward(self, ids_N: Tensor, positions_N: Tensor, layout: Layout) -> Tensor:
        """Token vectors, or only the one of each text that pooling takes.

        Args:
            ids_N: (N,) tokens.
            positions_N: (N,) each token's place in its text, from 0.
            layout: where the B texts are.
        Returns:
            All (N, D) for the pooling `mean`, else (B, D).
        """
        angles_Nd = (positions_N.float()[:, None] * self.frequencies).repeat(1, 2)
        cos_Nd, sin_Nd = angles_Nd.cos().to(self.word.dtype), angles_Nd.sin().to(self.word.dtype)
        x_ND: Tensor = functional.embedding(ids_N, self.word)
        residual_ND: Any = None
        layers: Any = self.layers
        for layer in layers:
            if layer is layers[-1] and self.pooling == "last":
                q, k, v, residual_ND = layer.project_last(x_ND, residual_ND, cos_Nd, sin_Nd, layout)
                context = layout.attend_once(q, k, v)
            else:
                q, k, v, residual_ND = layer.project(x_ND, residual_ND, cos_Nd, sin_Nd)
                context = layout.attend(q, k, v, causal=True)
            x_ND, residual_ND = layer.finish(context, residual_ND)
        if self.pooling == "cls":
            x_ND, residual_ND = layout.pick(x_ND, "cls"), layout.pick(residual_ND, "cls")
        return rms_norm(x_ND, self.norm, self.eps, residual_ND, inplace=True)[0]
