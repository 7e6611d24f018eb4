"""How a hub says what a file's bytes are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpu_select.errors import InputError

__all__ = ["Checksum"]


@dataclass(frozen=True)
class Checksum:
    """A file's checksum, in hexadecimal."""

    kind: Literal["sha256", "git"]
    """Of large files the hub knows the SHA-256, of others git's object id: the SHA-1 of `blob SIZE`, NUL, the file."""
    value: str

    def of(self, path: Path) -> str:
        """The checksum of the same kind of a local file.

        Raises:
            InputError: it cannot be read.
        """
        try:
            with open(path, "rb") as stream:
                if self.kind == "sha256":
                    return hashlib.file_digest(stream, "sha256").hexdigest()
                header = b"blob %d\0" % path.stat().st_size
                return hashlib.file_digest(stream, lambda: hashlib.sha1(header, usedforsecurity=False)).hexdigest()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
