"""A model's files in another folder: those that count, and no others."""

from __future__ import annotations

import shutil
from pathlib import Path

from gpu_select.encoder.checkpoint import INDEX_FILE, TOKENIZER_FILES, WEIGHTS_FILE, weight_files
from gpu_select.encoder.settings import settings_files
from gpu_select.errors import EncoderError
from gpu_select.files import atomic_path

__all__ = ["copy_model"]


def copy_model(source: Path, target: Path) -> None:
    """Copy what `load_encoder` reads of a model: config, settings, tokenizer and safetensors weights.

    Args:
        source: the model's folder.
        target: a folder, which is made.
    Raises:
        EncoderError: a file cannot be read, or is missing.
        OutputError: one cannot be written.
    """
    names = ["config.json", *TOKENIZER_FILES, *settings_files(source)]
    if not (source / WEIGHTS_FILE).is_file():
        names.append(INDEX_FILE)
    files = [source / name for name in names if (source / name).is_file()] + weight_files(source)
    for file in files:
        try:
            stream = open(file, "rb")  # noqa: SIM115 - closed below
        except OSError as error:
            raise EncoderError(f"{file}: cannot be read ({error.strerror or error})") from error
        with stream, atomic_path(target / file.relative_to(source)) as path, open(path, "wb") as copy:
            shutil.copyfileobj(stream, copy, 1 << 20)
