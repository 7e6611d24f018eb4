"""SDPA for transformers models without the mask checks that make the host wait for the device."""

from __future__ import annotations

from typing import Any

__all__ = ["use_sync_free_attention"]

_SDPA = "gpu_select_sdpa"
_EAGER = "gpu_select_eager"


def use_sync_free_attention(model: Any) -> None:
    """Switch a loaded model to masks that are made without reading tensor values on the host.

    transformers skips a mask that masks nothing, and to know that it reads the mask back from the device in every
    forward. Here a plain causal mask is always left to SDPA's `is_causal` (rows come with their padding last, which no
    token sees: `left_align`), and any other mask is always built. A model without SDPA, apart from MPNet, keeps the
    masks of transformers.

    Args:
        model: a transformers `PreTrainedModel`; its config is changed.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register(_SDPA, sdpa_attention_forward)
    AttentionMaskInterface.register(_SDPA, _sdpa_mask)
    AttentionMaskInterface.register(_EAGER, _eager_mask)
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(_SDPA)
    elif model.config.model_type == "mpnet":
        # MPNet adds its position bias and the mask to the scores itself and only asks for the mask by this name
        model.config._attn_implementation = _EAGER


def _sdpa_mask(mask_function: Any, **kwargs: Any) -> Any:
    from transformers.masking_utils import causal_mask_function, sdpa_mask

    if mask_function is causal_mask_function:
        return None
    kwargs |= {"mask_function": mask_function, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(**kwargs)


def _eager_mask(**kwargs: Any) -> Any:
    from transformers.masking_utils import eager_mask

    return eager_mask(**kwargs | {"allow_is_bidirectional_skip": False})
