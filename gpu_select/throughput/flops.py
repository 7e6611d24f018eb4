"""What a token costs in an encoder."""

from __future__ import annotations

from torch import nn

from gpu_select.encoder.linear import Linear

__all__ = ["flops_per_token"]


def flops_per_token(model: nn.Module) -> int:
    """FLOPs that the linear layers spend on a token: two for each weight.

    This is the model's cost, as in "model FLOP utilisation": attention, norms and activations are not counted, and what
    an implementation saves (the last layer needs only the tokens that pooling takes) counts as speed.

    Args:
        model: an encoder, or a model of transformers; a pooler, which works on texts, is left out.
    Source:
        Chowdhery et al. (2022), arXiv:2204.02311, appendix B.
    """
    return sum(
        2 * module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, (Linear, nn.Linear)) and "pooler" not in name.split(".")
    )
