from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.encoder import ENCODERS, EncoderSettings
from gpu_select.encoder.settings import read_settings
from gpu_select.errors import EncoderError

MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
NEW_NAMES = [
    {"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
    {"path": "1_Pooling", "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"},
]

Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Writes the files named by keyword: modules, pooling, model, transformer, config; None leaves one out."""

    def write(**changes: Any) -> Path:
        return write_files(tmp_path, **changes)

    return write


def write_files(root: Path, **changes: Any) -> Path:
    names = {
        "modules": "modules.json",
        "pooling": "1_Pooling/config.json",
        "model": "config_sentence_transformers.json",
        "transformer": "sentence_bert_config.json",
        "config": "config.json",
    }
    values: dict[str, Any] = {"modules": MODULES, "pooling": {"pooling_mode": "mean"}, "model": None, "config": {}}
    for key, value in (values | changes).items():
        if value is not None:
            path = root / names.get(key, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(value), encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": ["cls"]}, "cls"),
        ({"pooling_mode": "mean", "include_prompt": True, "embedding_dimension": 4}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "last"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}, "mean"),
        ({"word_embedding_dimension": 4}, "mean"),
        ({"pooling_mode": "cls", "include_prompt": False}, "cls"),  # without a prompt there is nothing to leave out
    ],
)
def test_pooling_in_old_and_new_style(pooling: dict[str, Any], expected: str, folder: Folder) -> None:
    assert read_settings(folder(pooling=pooling), None, 99).pooling == expected


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ({"pooling_mode": "max"}, "pooling_mode: expected one of lasttoken, mean, cls, got 'max'"),
        ({"pooling_mode": ["cls", "mean"]}, r"pooling_mode: expected one of .*, got \['cls', 'mean'\]"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, r"got \['cls', 'mean'\]"),
        ({"pooling_mode_weightedmean_tokens": True}, "got 'weightedmean'"),
        ({"pooling_mode_max_tokens": "yes"}, "got 'max'"),
        ({"pooling_mode": 3}, "got 3"),
        ([], "expected a JSON object, got list"),
    ],
)
def test_pooling_that_is_not_supported(pooling: Any, message: str, folder: Folder) -> None:
    root = folder(pooling=pooling)
    with pytest.raises(EncoderError, match=message) as caught:
        read_settings(root, None, 99)
    assert str(root / "1_Pooling" / "config.json") in str(caught.value)


def test_pooling_file_is_missing(folder: Folder) -> None:
    with pytest.raises(EncoderError, match=r"1_Pooling/config\.json: cannot be read"):
        read_settings(folder(pooling=None), None, 99)


def test_module_names_of_today(folder: Folder) -> None:
    assert read_settings(folder(modules=NEW_NAMES), None, 99).pooling == "mean"


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({}, "modules: expected a list, got {}"),
        ([], r"modules: expected the modules Transformer, Pooling and Normalize of sentence-transformers, .*got \[\]"),
        ([*MODULES[:2], {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}], "module 2: .*Dense'"),
        ([{"path": "", "type": "custom_code.Transformer"}, *MODULES[1:]], "module 0: .*got 'custom_code.Transformer'"),
        (MODULES[:1], r"modules: .*in this order, got \['Transformer'\]"),
        ([MODULES[0], MODULES[2], MODULES[1]], "in this order, got"),
        ([MODULES[0], "Pooling"], "module 1: expected an object with type and path, got 'Pooling'"),
        (
            [MODULES[0] | {"path": "0_Transformer"}, MODULES[1]],
            "module 0: path: expected the Transformer in the model's own",
        ),
        (
            [MODULES[0], MODULES[1] | {"path": "../secret"}],
            "module 1: path: expected the name of a folder, got '../secret'",
        ),
        ([MODULES[0], MODULES[1] | {"path": ".."}], "module 1: path: expected the name of a folder"),
    ],
)
def test_modules_that_are_not_supported(modules: Any, message: str, folder: Folder) -> None:
    root = folder(modules=modules)
    with pytest.raises(EncoderError, match=message) as caught:
        read_settings(root, None, 99)
    assert str(root / "modules.json") in str(caught.value)


def test_prefix_is_the_default_prompt_only(folder: Folder) -> None:
    prompts = {"query": "Instruct: find\nQuery:", "short": "q: ", "none": ""}
    for default, expected in ((None, ""), ("short", "q: "), ("none", "")):
        model = {"prompts": prompts, "default_prompt_name": default}
        assert read_settings(folder(model=model), None, 99).prefix == expected
    assert read_settings(folder(model={"prompts": prompts}), None, 99).prefix == ""


def test_prefix_of_the_registry_holds_where_the_files_name_no_default_prompt(folder: Folder) -> None:
    assert read_settings(folder(), ENCODERS["e5"], 99).prefix == "query: "
    assert read_settings(folder(model={"default_prompt_name": None}), ENCODERS["e5"], 99).prefix == "query: "
    named = {"prompts": {"x": "X "}, "default_prompt_name": "x"}
    assert read_settings(folder(model=named), ENCODERS["e5"], 99).prefix == "X "


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"default_prompt_name": "query"}, "default_prompt_name: expected the name of one of the prompts, got 'query'"),
        ({"default_prompt_name": "q", "prompts": {"q": 3}}, "default_prompt_name: expected the name of one"),
        ({"default_prompt_name": ["q"], "prompts": {"q": "x"}}, "default_prompt_name: expected the name of one"),
        ({"truncate_dim": 64}, r"truncate_dim: expected null \(shortened vectors are not supported\), got 64"),
        ({"model_type": "SparseEncoder"}, "model_type: expected SentenceTransformer, got 'SparseEncoder'"),
    ],
)
def test_model_config_that_is_not_supported(model: Any, message: str, folder: Folder) -> None:
    root = folder(model=model)
    with pytest.raises(EncoderError, match=message) as caught:
        read_settings(root, None, 99)
    assert str(root / "config_sentence_transformers.json") in str(caught.value)


def test_prompt_left_out_of_pooling_is_not_supported(folder: Folder) -> None:
    root = folder(
        pooling={"pooling_mode": "mean", "include_prompt": False},
        model={"prompts": {"q": "Q: "}, "default_prompt_name": "q"},
    )
    with pytest.raises(
        EncoderError, match="include_prompt: expected true, as the model has a default prompt, got False"
    ):
        read_settings(root, None, 99)


@pytest.mark.parametrize(
    ("transformer", "max_length", "lowercase"),
    [
        (None, 99, False),
        ({}, 99, False),
        ({"max_seq_length": None, "do_lower_case": False}, 99, False),
        ({"max_seq_length": 256, "do_lower_case": True}, 256, True),
        ({"tokenizer_args": {"model_max_length": 12}, "max_seq_length": 40}, 12, False),
        ({"processor_kwargs": {"model_max_length": 13, "padding_side": "left"}}, 13, False),
        ({"transformer_task": "feature-extraction", "query_expansion": None, "processing_kwargs": {}}, 99, False),
        ({"modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}}, 99, False),
    ],
)
def test_length_limit_and_lower_casing(transformer: Any, max_length: int, lowercase: bool, folder: Folder) -> None:
    expected = EncoderSettings(pooling="mean", prefix="", max_length=max_length, lowercase=lowercase)
    assert read_settings(folder(transformer=transformer), None, 99) == expected


def test_name_of_the_length_file_in_early_models(folder: Folder) -> None:
    root = folder(**{"sentence_roberta_config.json": {"max_seq_length": 77}})
    assert read_settings(root, None, 99).max_length == 77


MESSAGE = {"message": {"method": "forward", "method_output_name": "last_hidden_state"}}


@pytest.mark.parametrize(
    ("transformer", "message"),
    [
        ({"max_seq_length": 0}, "max_seq_length: expected a whole number of at least 1, got 0"),
        ({"max_seq_length": True}, "max_seq_length: expected a whole number of at least 1, got True"),
        ({"max_seq_length": "256"}, "max_seq_length: expected a whole number of at least 1, got '256'"),
        ({"do_lower_case": "no"}, "do_lower_case: expected true or false, got 'no'"),
        ({"transformer_task": "fill-mask"}, "transformer_task: expected feature-extraction, got 'fill-mask'"),
        ({"modality_config": MESSAGE}, "modality_config: expected plain text input only, got"),
        ({"config_args": {"is_causal": False}}, "config_args: expected a setting that is supported, got"),
        (
            {"processing_kwargs": {"text": {"truncation": False}}},
            "processing_kwargs: expected a setting that is supported",
        ),
        ({"tokenizer_args": {"add_eos_token": True}}, "tokenizer_args: expected only model_max_length, padding_side"),
        ({"tokenizer_args": "x"}, "tokenizer_args: expected only"),
    ],
)
def test_transformer_settings_that_are_not_supported(transformer: Any, message: str, folder: Folder) -> None:
    root = folder(transformer=transformer)
    with pytest.raises(EncoderError, match=message) as caught:
        read_settings(root, None, 99)
    assert str(root / "sentence_bert_config.json") in str(caught.value)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"architectures": ["BertModel"]}, "mean"),
        ({"architectures": ["Qwen3ForCausalLM"]}, "last"),
        ({"architectures": ["Qwen3ForCausalLM"], "is_causal": False}, "mean"),
        ({"architectures": []}, "mean"),
        ({"architectures": 3}, "mean"),
        ({}, "mean"),
    ],
)
def test_model_without_sentence_transformers_files(config: Any, pooling: str, folder: Folder) -> None:
    root = folder(modules=None, pooling=None, config=config)
    assert read_settings(root, None, 99) == EncoderSettings(pooling=pooling, prefix="", max_length=99)  # type: ignore[arg-type]


def test_registry_speaks_for_a_named_model_without_sentence_transformers_files(folder: Folder) -> None:
    root = folder(modules=None, pooling=None)
    assert read_settings(root, ENCODERS["bge"], 512) == EncoderSettings("cls", "", 512)
    assert read_settings(root, ENCODERS["e5"], 512) == EncoderSettings("mean", "query: ", 512)
    assert read_settings(root, ENCODERS["qwen3"], 512) == EncoderSettings("last", "", 512)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
known_keys = st.sampled_from(
    [
        "pooling_mode", "pooling_mode_cls_token", "include_prompt", "prompts", "default_prompt_name", "model_type",
        "truncate_dim", "max_seq_length", "do_lower_case", "tokenizer_args", "modality_config", "architectures", "type",
        "path",
    ]
)  # fmt: skip
objects = json_values | st.dictionaries(known_keys, json_values, max_size=4)


@settings(max_examples=150)
@given(objects, objects, objects, st.just(MODULES) | st.lists(objects, max_size=3) | objects)
def test_whatever_the_files_hold_the_only_error_is_ours(
    pooling: Any, model: Any, transformer: Any, modules: Any
) -> None:
    with tempfile.TemporaryDirectory() as root:
        write_files(Path(root), pooling=pooling, model=model, transformer=transformer, modules=modules)
        with contextlib.suppress(EncoderError):
            found = read_settings(Path(root), None, 99)
            assert found.pooling in ("last", "mean", "cls")
            assert found.max_length >= 1
