from __future__ import annotations

import pytest
import torch

from gpu_select.throughput import SMALL, encoders, pick_encoder

CPU = torch.device("cpu")


@pytest.fixture
def at_hand(monkeypatch, tiny_encoder_path):
    """Call with names: these encoders are at hand, and load as the tiny one."""
    loaded = []

    def only(*names):
        monkeypatch.setattr(encoders, "is_at_hand", lambda name: name in names)
        original = encoders.load_encoder

        def load(name, **options):
            loaded.append(name)
            return original(str(tiny_encoder_path) if name in ("qwen3", "minilm") else name, **options)

        monkeypatch.setattr(encoders, "load_encoder", load)
        return loaded

    return only


@pytest.mark.parametrize(("names", "expected"), [(("qwen3", "minilm"), "qwen3"), (("minilm",), "minilm")])
def test_the_first_that_is_at_hand_is_taken(at_hand, tmp_path, names, expected):
    loaded = at_hand(*names)
    used = pick_encoder(None, device=CPU, dtype="auto", cache_dir=str(tmp_path))
    assert loaded == [expected]
    assert not used.is_random
    assert used.words == "tiny-bert, with its own weights and tokenizer"
    assert list(tmp_path.iterdir()) == []


def test_the_named_one_comes_first(at_hand, tmp_path, tiny_encoder_path):
    at_hand("qwen3", "minilm")
    used = pick_encoder(str(tiny_encoder_path), device=CPU, dtype="bfloat16", cache_dir=str(tmp_path))
    assert used.encoder.name == "tiny-bert"
    assert used.encoder.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("device", "shape"), [(CPU, SMALL), (torch.device("cuda"), encoders.QWEN3_06B), (torch.device("mps"), SMALL)]
)
def test_without_any_a_random_one_is_made_and_said_to_be_random(
    at_hand, tmp_path, random_path, device, shape, monkeypatch
):
    at_hand(*(["minilm"] if device.type == "cuda" else []))
    made = []

    def ensure(folder, shape, *, device):
        made.append((folder, shape, device))
        return random_path

    monkeypatch.setattr(encoders, "ensure_random_encoder", ensure)
    original = encoders.load_encoder
    monkeypatch.setattr(encoders, "load_encoder", lambda name, *, device, dtype: original(name, dtype=dtype))
    used = pick_encoder(None, device=device, dtype="auto", cache_dir=str(tmp_path))
    assert made == [(str(tmp_path), shape, device)]
    assert used.is_random
    assert used.words == (
        f"RANDOM WEIGHTS of the shape of {shape.name}; the tokenizer is a BPE of 700 entries trained here "
        f"({shape.vocab_size:,} wanted: too little text is installed)"
    )
