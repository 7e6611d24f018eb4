"""English and code that lies on any machine with Python: the sources and notes of what is installed."""

from __future__ import annotations

import functools
import hashlib
import os
import sysconfig
from pathlib import Path

from gpu_select.errors import InputError

__all__ = ["CORPUS_BYTES", "read_corpus"]

CORPUS_BYTES = 48 * 2**20
"""Enough to train a tokenizer of Qwen's vocabulary on; takes about half a minute on two cores."""

_ENDINGS = (".py", ".md", ".rst", ".txt")

_MAX_FILE_BYTES = 128 * 2**10
"""Of one file: a few giant tables must not make up the whole."""


def read_corpus(max_bytes: int = CORPUS_BYTES) -> list[str]:
    """Texts of the standard library and the installed packages, the same ones each time on one installation.

    Files are taken in the order of a hash of their names, so that a part of them is a fair sample.

    Args:
        max_bytes: stop after so many.
    Raises:
        InputError: no text is there.
    """
    texts: list[str] = []
    total = 0
    for path in _files(tuple(sorted({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}))):
        try:
            with open(path, "rb") as stream:
                data = stream.read(_MAX_FILE_BYTES)
        except OSError:
            continue
        # a cut within a character leaves up to three bytes of it
        text = data.decode("utf-8", "ignore")
        if b"\0" in data or not text.strip() or len(data) - len(text.encode()) > 3:
            continue
        texts.append(text)
        total += len(data)
        if total >= max_bytes:
            break
    if not texts:
        raise InputError("synthetic queries: no .py, .md, .rst or .txt file found in Python's own folders")
    return texts


@functools.cache
def _files(roots: tuple[str, ...]) -> tuple[Path, ...]:
    """All files of the kinds wanted, each once, in the order of their hashed names; there may be 100,000."""
    found: dict[str, bytes] = {}
    for root in sorted(roots, key=len, reverse=True):
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            for name in names:
                path = os.path.join(folder, name)
                if name.endswith(_ENDINGS) and path not in found:
                    found[path] = hashlib.sha256(os.path.relpath(path, root).encode("utf-8", "replace")).digest()
    return tuple(Path(path) for path in sorted(found, key=lambda path: (found[path], path)))
