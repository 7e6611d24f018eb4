from __future__ import annotations

import pytest
import torch

from gpu_select.encoder import load_encoder
from gpu_select.encoder.qwen3 import Qwen3Backbone
from gpu_select.throughput import QWEN3_06B, flops_per_token


@pytest.fixture(scope="module")
def true_model():
    import transformers

    config = transformers.Qwen3Config(**{k: v for k, v in QWEN3_06B.config().items() if k != "model_type"})
    with torch.device("meta"):
        return transformers.Qwen3Model(config)


def test_qwen3_takes_881_megaflop_a_token(true_model):
    assert flops_per_token(true_model) == 880_803_840


def test_the_packed_backbone_has_the_same_weights(true_model):
    backbone = Qwen3Backbone.of(true_model, "last")
    assert backbone is not None
    assert flops_per_token(backbone) == 880_803_840


def test_an_encoder_with_a_pooler_counts_only_what_tokens_go_through(tiny_encoder_path):
    # two layers of width 32: four square matrices and two of 32 x 64
    assert flops_per_token(load_encoder(str(tiny_encoder_path))) == 2 * 2 * (4 * 32 * 32 + 2 * 32 * 64)
    import transformers

    model = transformers.AutoModel.from_pretrained(tiny_encoder_path)
    assert model.pooler is not None
    assert flops_per_token(model) == 2 * 2 * (4 * 32 * 32 + 2 * 32 * 64)
