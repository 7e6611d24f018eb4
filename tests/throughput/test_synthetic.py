from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gpu_select.encoder import embed, load_encoder
from gpu_select.errors import OutputError
from gpu_select.throughput import QWEN3_06B, SMALL, ensure_random_encoder
from gpu_select.throughput.bpe import END

TEXTS = ["What is the capital of France?", "x", "def f(x):\n    return x + 1", "a longer one " * 20]


def test_the_encoder_takes_packed_batches_and_pools_the_last_token(random_tiny, tiny_shape):
    assert random_tiny.takes_packed
    assert random_tiny.settings.pooling == "last"
    assert random_tiny.settings.prefix == ""
    assert random_tiny.settings.max_length == tiny_shape.max_position_embeddings
    assert random_tiny.tokenizer.vocab_size == tiny_shape.vocab_size


def test_sentence_transformers_gives_the_same_vectors(random_path, random_tiny):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    peer = sentence_transformers.SentenceTransformer(
        str(random_path), device="cpu", model_kwargs={"torch_dtype": torch.float32}
    )
    expected = peer.encode(TEXTS, normalize_embeddings=True)
    assert np.abs(embed(random_tiny, TEXTS).vectors.numpy() - expected).max() < 1e-5


def test_different_texts_get_clearly_different_vectors(random_tiny):
    vectors = embed(random_tiny, TEXTS).vectors
    assert (vectors @ vectors.T - torch.eye(len(TEXTS))).max() < 0.9


def test_weights_are_random_and_norms_are_one(random_path, tiny_shape):
    from safetensors.torch import load_file

    weights = load_file(random_path / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert weights["embed_tokens.weight"].shape == (tiny_shape.vocab_size, 64)
    assert weights["embed_tokens.weight"].float().std().item() == pytest.approx(0.02, rel=0.02)
    assert (weights["layers.2.self_attn.q_norm.weight"] == 1).all()
    assert not torch.equal(weights["layers.0.mlp.up_proj.weight"], weights["layers.1.mlp.up_proj.weight"])


def test_a_model_is_made_once(random_path, tiny_shape, monkeypatch):
    monkeypatch.setattr("gpu_select.throughput.synthetic.read_corpus", None)
    assert ensure_random_encoder(random_path.parent, tiny_shape) == random_path


def test_the_same_model_comes_out_each_time(tmp_path, random_tiny, tiny_shape, corpus_bytes):
    again = ensure_random_encoder(tmp_path, tiny_shape, corpus_bytes=corpus_bytes)
    assert load_encoder(str(again)).fingerprint == random_tiny.fingerprint


def test_what_breaks_off_leaves_nothing(tmp_path, tiny_shape, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OutputError, match=r"cannot write .*random-tiny: No space left on device"):
        ensure_random_encoder(tmp_path, tiny_shape, corpus_bytes=10_000)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, tiny_shape):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*file/random-tiny: (Not a directory|File exists)"):
        ensure_random_encoder(tmp_path / "file", tiny_shape, corpus_bytes=10_000)


def test_the_true_shape_is_that_of_qwen3_embedding():
    import transformers

    config = transformers.Qwen3Config(**{k: v for k, v in QWEN3_06B.config().items() if k != "model_type"})
    with torch.device("meta"):
        model = transformers.Qwen3Model(config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == 595_776_512
    assert parameters - model.embed_tokens.weight.numel() == 440_467_456
    assert config.rope_parameters["rope_theta"] == 1_000_000
    assert config.rms_norm_eps == 1e-6


@pytest.mark.parametrize("shape", [QWEN3_06B, SMALL])
def test_configs_are_json(shape):
    assert json.loads(json.dumps(shape.config()))["vocab_size"] == shape.vocab_size
    assert shape.num_attention_heads % shape.num_key_value_heads == 0


def test_the_end_token_pads(random_path):
    settings = json.loads((random_path / "tokenizer_config.json").read_text())
    assert settings["pad_token"] == settings["eos_token"] == END
