from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpu_select.encoder import Encoder, embed, load_encoder
from gpu_select.errors import ConfigError, DeviceError, EncoderError


def copied(source: Path, target: Path, **changes: object) -> Path:
    """The folder `source` again, with keys of config.json changed (None removes one)."""
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text()) | changes
    config = {key: value for key, value in config.items() if value is not None}
    (target / "config.json").write_text(json.dumps(config))
    return target


def reference(folder: Path, texts: list[str]) -> torch.Tensor:
    package = pytest.importorskip("sentence_transformers", reason="the reference for parity is not installed")
    model = package.SentenceTransformer(str(folder), device="cpu")
    return model.encode(texts, batch_size=4, convert_to_tensor=True, normalize_embeddings=True)


def assert_parity(folder: Path, texts: list[str]) -> None:
    mine = embed(load_encoder(str(folder)), texts).vectors
    cosine = (mine * reference(folder, texts)).sum(dim=1)
    assert cosine.min() >= 0.99999
    assert (mine @ mine.T).fill_diagonal_(0).max() < 0.9999, "texts must be distinguishable for parity to mean anything"


def test_minilm_agrees_with_sentence_transformers(minilm_path: Path, texts: list[str]) -> None:
    assert_parity(minilm_path, texts)


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_qwen3_agrees_with_sentence_transformers(
    padding_side: str, tmp_path: Path, texts: list[str], write_tiny_qwen3: Callable[..., Path]
) -> None:
    assert_parity(write_tiny_qwen3(tmp_path / "model", padding_side=padding_side), texts)


@pytest.mark.parametrize("pooling", ["cls", "mean", None])
def test_bert_agrees_with_sentence_transformers(
    pooling: str | None, tmp_path: Path, texts: list[str], write_tiny_bert: Callable[..., Path]
) -> None:
    distinct = [text for text in texts if not text.startswith("[SEP]")]
    assert_parity(write_tiny_bert(tmp_path / "model", pooling=pooling), distinct)


def test_files_as_sentence_transformers_writes_them_today(tiny_encoder_path: Path, tmp_path: Path) -> None:
    package = pytest.importorskip("sentence_transformers", reason="it is to write the files")
    package.SentenceTransformer(str(tiny_encoder_path), device="cpu").save(str(tmp_path / "saved"))
    saved = load_encoder(str(tmp_path / "saved"))
    assert saved.settings == load_encoder(str(tiny_encoder_path)).settings
    assert_parity(tmp_path / "saved", ["What is the capital of France?", "Solve for x"])


def test_lower_casing_and_a_default_prompt_are_applied(
    tmp_path: Path, write_tiny_qwen3: Callable[..., Path], texts: list[str]
) -> None:
    folder = write_tiny_qwen3(tmp_path / "model")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40, "do_lower_case": True}))
    prompts = {"prompts": {"query": "Query: ", "other": "no"}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    encoder = load_encoder(str(folder))
    assert (encoder.settings.prefix, encoder.settings.lowercase, encoder.settings.max_length) == ("Query: ", True, 40)
    assert_parity(folder, texts)


def test_the_query_prompt_of_qwen3_is_not_used_for_routing(tiny_qwen3: Encoder) -> None:
    assert tiny_qwen3.settings.prefix == ""
    assert tiny_qwen3.settings.pooling == "last"
    assert tiny_qwen3.settings.max_length == 128  # max_position_embeddings: the files name no smaller limit


def test_attributes(tiny_encoder: Encoder, tiny_encoder_path: Path) -> None:
    assert tiny_encoder.name == tiny_encoder_path.name
    assert tiny_encoder.dim == 32
    assert tiny_encoder.dtype == torch.float32
    assert tiny_encoder.device == torch.device("cpu")
    assert not tiny_encoder.training
    assert not any(parameter.requires_grad for parameter in tiny_encoder.parameters())


def test_minilm_by_name_comes_from_its_package(minilm_path: Path) -> None:
    encoder = load_encoder("minilm")
    assert encoder.name == "minilm"
    assert encoder.dim == 384
    assert encoder.settings.max_length == 256
    assert encoder.fingerprint == load_encoder(str(minilm_path)).fingerprint


def test_fingerprint_ignores_path_and_dtype_but_nothing_that_shapes_vectors(
    tiny_encoder: Encoder, tiny_encoder_path: Path, tmp_path: Path
) -> None:
    same = copied(tiny_encoder_path, tmp_path / "same")
    (same / "config.json").write_bytes((tiny_encoder_path / "config.json").read_bytes())
    assert load_encoder(str(same), dtype="bfloat16").fingerprint == tiny_encoder.fingerprint
    weights = load_file(same / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][5, 5] += 1e-6
    save_file(weights, same / "model.safetensors", metadata={"format": "pt"})
    changed = {load_encoder(str(same)).fingerprint}
    for number, (file, value) in enumerate(
        [
            ("1_Pooling/config.json", {"pooling_mode": "cls"}),
            ("sentence_bert_config.json", {"max_seq_length": 31}),
            ("config_sentence_transformers.json", {"prompts": {"q": "Q: "}, "default_prompt_name": "q"}),
        ]
    ):
        folder = copied(tiny_encoder_path, tmp_path / str(number))
        (folder / "config.json").write_bytes((tiny_encoder_path / "config.json").read_bytes())
        (folder / file).write_text(json.dumps(value))
        changed.add(load_encoder(str(folder)).fingerprint)
    assert len(changed | {tiny_encoder.fingerprint}) == 5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_on_request(dtype: str, tiny_encoder: Encoder, tiny_encoder_path: Path) -> None:
    encoder = load_encoder(str(tiny_encoder_path), dtype=dtype)  # type: ignore[arg-type]
    assert encoder.dtype == getattr(torch, dtype)
    texts = ["What is the capital of France?", "Solve for x"]
    half, full = embed(encoder, texts).vectors, embed(tiny_encoder, texts).vectors
    assert half.dtype == torch.float32
    assert (half * full).sum(dim=1).min() > 0.99
    assert not torch.equal(half, full)


def test_minilm_in_bfloat16_stays_near_float32(minilm_path: Path, texts: list[str]) -> None:
    full = embed(load_encoder(str(minilm_path)), texts).vectors
    half = embed(load_encoder(str(minilm_path), dtype="bfloat16"), texts).vectors
    assert (half * full).sum(dim=1).min() >= 0.9999
    assert not torch.equal(half, full)


def test_loading_is_silent(
    tiny_encoder_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    with caplog.at_level(logging.INFO):
        load_encoder(str(tiny_encoder_path))
    assert tuple(capfd.readouterr()) == ("", "")
    assert not caplog.records
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == before


def test_length_limit_stays_within_the_position_table(tiny_encoder_path: Path, tmp_path: Path) -> None:
    folder = copied(tiny_encoder_path, tmp_path / "model")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 500}')
    encoder = load_encoder(str(folder))
    assert encoder.settings.max_length == 64
    embedded = embed(encoder, ["word " * 500])
    assert (embedded.n_tokens, embedded.n_truncated) == (64, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "nonsense"}, "transformers cannot load this model .*nonsense"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "expected a text encoder, got a model of type 't5'"),
        ({"num_hidden_layers": 3}, r"expected all weights of a bert model, got none for encoder\.layer\.2\."),
        ({"hidden_size": 48}, "transformers cannot load this model"),
        ({"vocab_size": "many"}, "transformers cannot load this model"),
    ],
)
def test_config_that_does_not_fit_the_weights(
    changes: dict[str, object], message: str, tiny_encoder_path: Path, tmp_path: Path
) -> None:
    folder = copied(tiny_encoder_path, tmp_path / "model", **changes)
    with pytest.raises(EncoderError, match=message) as caught:
        load_encoder(str(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_model_that_brings_code_is_refused(tiny_encoder_path: Path, tmp_path: Path) -> None:
    folder = copied(
        tiny_encoder_path,
        tmp_path / "model",
        model_type="own",
        auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Config"},
    )
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(EncoderError, match="transformers cannot load this model"):
        load_encoder(str(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_attention_kernel_that_the_config_names_is_not_fetched(
    key: str, tiny_encoder: Encoder, tiny_encoder_path: Path, tmp_path: Path
) -> None:
    folder = copied(tiny_encoder_path, tmp_path / "model", **{key: "some-one/kernel"})
    vectors = embed(load_encoder(str(folder)), ["What is x?"]).vectors
    assert vectors.equal(embed(tiny_encoder, ["What is x?"]).vectors)


def test_quantized_weights(tiny_encoder_path: Path, tmp_path: Path) -> None:
    folder = copied(tiny_encoder_path, tmp_path / "model", quantization_config={"quant_method": "bitsandbytes"})
    with pytest.raises(EncoderError, match="expected weights in floating point, got a quantization_config"):
        load_encoder(str(folder))


def test_damaged_weights(tiny_encoder_path: Path, tmp_path: Path) -> None:
    folder = copied(tiny_encoder_path, tmp_path / "model")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(EncoderError, match="transformers cannot load this model"):
        load_encoder(str(folder))


def test_pickled_weights_are_never_read(tiny_encoder_path: Path, tmp_path: Path) -> None:
    folder = copied(tiny_encoder_path, tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        EncoderError, match=r"expected model\.safetensors, got only pytorch_model\.bin, a pickle.*safetensors"
    ):
        load_encoder(str(folder))


def test_tokenizer_of_another_model(tiny_encoder_path: Path, tiny_qwen3_path: Path, tmp_path: Path) -> None:
    folder = copied(tiny_encoder_path, tmp_path / "model")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_qwen3_path / file, folder / file)
    with pytest.raises(
        EncoderError, match=r"expected token ids below \d+, as the model has it, got \d+ in the tokenizer"
    ):
        load_encoder(str(folder))


def test_no_tokenizer(tiny_encoder_path: Path, tmp_path: Path) -> None:
    folder = copied(tiny_encoder_path, tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(EncoderError, match=r"expected tokenizer\.json, got none of tokenizer\.json, vocab\.txt"):
        load_encoder(str(folder))


def test_tokenizer_without_a_fast_backend(tiny_encoder_path: Path, tmp_path: Path) -> None:
    folder = copied(tiny_encoder_path, tmp_path / "model")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CanineTokenizer"}')
    with pytest.raises(EncoderError, match=r"expected a fast tokenizer \(tokenizer\.json\), got CanineTokenizer"):
        load_encoder(str(folder))


def test_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"expected the folder of a transformers model, got no config\.json in it"):
        load_encoder(str(tmp_path))


def test_adapter_is_refused(tiny_encoder_path: Path, tmp_path: Path) -> None:
    folder = copied(tiny_encoder_path, tmp_path / "model")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "somewhere/else"}')
    with pytest.raises(EncoderError, match="expected a whole model, got an adapter"):
        load_encoder(str(folder))


def test_device_and_dtype_are_checked_before_anything_is_loaded() -> None:
    with pytest.raises(DeviceError, match="device: expected cpu, cuda, cuda:N or mps, got 'tpu'"):
        load_encoder("no/such-model", device="tpu")
    with pytest.raises(ConfigError, match="dtype: expected one of auto, float32, bfloat16, float16, got 'int8'"):
        load_encoder("no/such-model", dtype="int8")  # type: ignore[arg-type]


def test_memory_that_runs_out_while_loading(tiny_encoder_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Encoder, "to", full)
    with pytest.raises(DeviceError, match="device cpu: out of memory while loading encoder tiny-bert"):
        load_encoder(str(tiny_encoder_path))
