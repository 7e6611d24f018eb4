"""Pooling, prefix and length limit of an encoder, from the files that sentence-transformers writes beside a model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_select.encoder.checkpoint import read_json_object, read_json_value
from gpu_select.encoder.registry import EncoderSpec, Pooling
from gpu_select.errors import EncoderError, brief

__all__ = ["EncoderSettings", "read_settings", "settings_files"]


@dataclass(frozen=True)
class EncoderSettings:
    """How texts become vectors around the transformer itself. The vectors are always L2-normalised at the end."""

    pooling: Pooling
    """Which token vectors make the text's vector."""
    prefix: str
    """Put before every text."""
    max_length: int
    """Most tokens a text may have, special tokens included; the rest is cut off."""
    lowercase: bool = False
    """Lower-case texts before the tokenizer's own normalisation."""


_TRANSFORMER_CONFIGS = tuple(
    f"sentence_{kind}_config.json" for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta")
)
"""Name of the Transformer module's settings; the later ones are what early sentence-transformers wrote."""

_POOLING_MODES: dict[str, Pooling] = {"lasttoken": "last", "mean": "mean", "cls": "cls"}

_LEGACY_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

# settings that cannot change a text's vector (loading, padding, other tasks); any other that is set is refused
_HARMLESS = {"max_seq_length", "do_lower_case", "module_output_name", "unpad_inputs", "model_args", "model_kwargs"}
_HARMLESS |= {"query_length", "document_length"}
_TOKENIZER_ARGUMENTS = ("tokenizer_args", "processor_kwargs")
_HARMLESS_TOKENIZER_ARGUMENTS = {"model_max_length", "padding_side", "use_fast", "trust_remote_code"}


def read_settings(folder: Path, spec: EncoderSpec | None, default_max_length: int) -> EncoderSettings:
    """Settings of the model in a folder.

    A model with modules.json says them itself, as sentence-transformers would read it; the prefix is then its default
    prompt (prompts for other uses, like a retrieval instruction, are not applied), else the registry's. A model
    without modules.json gets the registry's settings, and an unknown one last-token pooling if it was trained as a
    causal language model, else the mean.

    Args:
        folder: holds config.json and, where it has them, modules.json and what belongs to it.
        spec: the registry's entry, if it has one.
        default_max_length: limit where the files name none.
    Raises:
        EncoderError: a file is damaged, or asks for something that is not supported; names the file and the setting.
    Source:
        The file formats are those of sentence-transformers 6.2 and before (`base/model.py`,
        `base/modules/transformer.py`, `sentence_transformer/modules/pooling.py`).
    """
    prefix = spec.prefix if spec else ""
    modules = folder / "modules.json"
    if not modules.is_file():
        pooling = spec.pooling if spec else _default_pooling(folder / "config.json")
        return EncoderSettings(pooling=pooling, prefix=prefix, max_length=default_max_length)
    pooling_folder = _check_modules(modules)
    model_config = folder / "config_sentence_transformers.json"
    if model_config.is_file():
        default_prompt = _default_prompt(model_config)
        prefix = prefix if default_prompt is None else default_prompt
    max_length, lowercase = None, False
    for name in _TRANSFORMER_CONFIGS:
        if (folder / name).is_file():
            max_length, lowercase = _transformer_settings(folder / name)
            break
    pooling = _pooling(folder / pooling_folder / "config.json", prefix)
    return EncoderSettings(
        pooling=pooling,
        prefix=prefix,
        max_length=default_max_length if max_length is None else max_length,
        lowercase=lowercase,
    )


def settings_files(folder: Path) -> list[str]:
    """The files, relative to a model's folder, that `read_settings` may read beside config.json.

    Raises:
        EncoderError: a modules.json that is not supported.
    """
    if not (folder / "modules.json").is_file():
        return []
    pooling_folder = _check_modules(folder / "modules.json")
    return ["modules.json", "config_sentence_transformers.json", *_TRANSFORMER_CONFIGS, f"{pooling_folder}/config.json"]


def _unsupported(path: Path, setting: str, got: object, expected: str) -> EncoderError:
    return EncoderError(f"{path}: {setting}: expected {expected}, got {brief(got)}")


def _default_pooling(config_path: Path) -> Pooling:
    config = read_json_object(config_path)
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else ""
    causal = isinstance(first, str) and first.endswith("ForCausalLM") and config.get("is_causal", True) is not False
    return "last" if causal else "mean"


def _check_modules(path: Path) -> str:
    """Accept Transformer, Pooling and at most one Normalize; return the folder of the Pooling module."""
    expected = "the modules Transformer, Pooling and Normalize of sentence-transformers"
    modules = read_json_value(path)
    if not isinstance(modules, list):
        raise _unsupported(path, "modules", modules, "a list")
    kinds: list[str] = []
    paths: list[str] = []
    for number, module in enumerate(modules):
        kind = module.get("type") if isinstance(module, dict) else None
        where = module.get("path") if isinstance(module, dict) else None
        if not isinstance(kind, str) or not isinstance(where, str):
            raise _unsupported(path, f"module {number}", module, "an object with type and path")
        short = kind.rpartition(".")[2]
        if not kind.startswith("sentence_transformers.") or short not in ("Transformer", "Pooling", "Normalize"):
            raise _unsupported(path, f"module {number}", kind, expected)
        kinds.append(short)
        paths.append(where)
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise _unsupported(path, "modules", kinds, f"{expected}, in this order")
    if paths[0] != "":
        raise _unsupported(path, "module 0: path", paths[0], "the Transformer in the model's own folder")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", paths[1]):
        raise _unsupported(path, "module 1: path", paths[1], "the name of a folder")
    return paths[1]


def _default_prompt(path: Path) -> str | None:
    """The prompt that is put before every text, or None where the model names none."""
    config = read_json_object(path)
    if config.get("model_type", "SentenceTransformer") != "SentenceTransformer":
        raise _unsupported(path, "model_type", config["model_type"], "SentenceTransformer")
    if config.get("truncate_dim") is not None:
        raise _unsupported(path, "truncate_dim", config["truncate_dim"], "null (shortened vectors are not supported)")
    name = config.get("default_prompt_name")
    if name is None:
        return None
    prompts = config.get("prompts")
    prompt = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
    if not isinstance(prompt, str):
        raise _unsupported(path, "default_prompt_name", name, "the name of one of the prompts")
    return prompt


def _transformer_settings(path: Path) -> tuple[int | None, bool]:
    """(length limit or None, lower-case) of the Transformer module."""
    config = read_json_object(path)
    limit = config.get("max_seq_length")
    for key in _TOKENIZER_ARGUMENTS:
        arguments = config.get(key) or {}
        if not isinstance(arguments, dict) or not arguments.keys() <= _HARMLESS_TOKENIZER_ARGUMENTS:
            raise _unsupported(path, key, arguments, f"only {', '.join(sorted(_HARMLESS_TOKENIZER_ARGUMENTS))}")
        limit = arguments.get("model_max_length", limit)
    if limit is not None and (type(limit) is not int or limit < 1):
        raise _unsupported(path, "max_seq_length", limit, "a whole number of at least 1")
    lowercase = config.get("do_lower_case", False)
    if type(lowercase) is not bool:
        raise _unsupported(path, "do_lower_case", lowercase, "true or false")
    if config.get("transformer_task", "feature-extraction") != "feature-extraction":
        raise _unsupported(path, "transformer_task", config["transformer_task"], "feature-extraction")
    text = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    # a "message" entry means texts are rendered through a chat template first
    if config.get("modality_config", text) != text:
        raise _unsupported(path, "modality_config", config["modality_config"], "plain text input only")
    known = _HARMLESS | {*_TOKENIZER_ARGUMENTS, "transformer_task", "modality_config"}
    for key, value in config.items():
        if key not in known and value not in (None, {}):
            raise _unsupported(path, key, value, "a setting that is supported")
    return limit, lowercase


def _pooling(path: Path, prefix: str) -> Pooling:
    config = read_json_object(path)
    modes: Any = config.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in _LEGACY_POOLING_FLAGS.items() if config.get(flag, False) is not False] or "mean"
    if isinstance(modes, list) and len(modes) == 1:
        modes = modes[0]
    if not isinstance(modes, str) or modes not in _POOLING_MODES:
        raise _unsupported(path, "pooling_mode", modes, f"one of {', '.join(_POOLING_MODES)}")
    if prefix and config.get("include_prompt", True) is not True:
        raise _unsupported(path, "include_prompt", config["include_prompt"], "true, as the model has a default prompt")
    return _POOLING_MODES[modes]
