"""What a run does, as plain values that can be sent to other processes."""

from __future__ import annotations

import dataclasses
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from gpu_select.errors import ConfigError, InputError
from gpu_select.files import STDIO, strip_compression
from gpu_select.logs import log_format
from gpu_select.pipeline import RouteOptions

__all__ = ["FileIdentity", "Job", "ShardFormat"]

ShardFormat = Literal["jsonl", "parquet"]


@dataclass(frozen=True)
class FileIdentity:
    """By what a file is taken to be the same."""

    path: str
    n_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: str) -> Self:
        """Of a file as it is.

        Raises:
            InputError: there is no such file, or it can be read only once.
        """
        if path == STDIO:
            raise InputError("cannot write shards of standard input, which cannot be read again: name files")
        try:
            about = os.stat(path)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
        if not stat.S_ISREG(about.st_mode):
            raise InputError(f"cannot write shards of {path}, which cannot be read again: expected a regular file")
        return cls(path, about.st_size, about.st_mtime_ns)

    def check(self) -> None:
        """Make sure that the file still is as it was.

        Raises:
            InputError: it is not.
        """
        if FileIdentity.of(self.path) != self:
            raise InputError(f"cannot read {self.path}: it has changed while it was read")


@dataclass(frozen=True)
class Job:
    """A log, the router for it, and the folder for the shards."""

    options: RouteOptions
    files: tuple[FileIdentity, ...]
    """At least one; the log is their rows in this order."""
    folder: str
    shard_rows: int
    input_format: str | None = None
    """Of all files; None for what their names say."""
    output_format: ShardFormat = "jsonl"

    @classmethod
    def of(
        cls,
        options: RouteOptions,
        paths: list[str],
        folder: str,
        shard_rows: int,
        *,
        input_format: str | None = None,
        output_format: str | None = None,
    ) -> Self:
        """Check what can be checked at once.

        Args:
            options: how rows are routed.
            paths: the files of the log.
            folder: where the shards go.
            shard_rows: rows of a shard, at least 1.
            input_format: of all files, where their names do not tell.
            output_format: jsonl or parquet; by default what the folder's name ends in, else parquet where all files are
                Parquet.

        Raises:
            ConfigError: another format, or a folder in which shards cannot be.
            InputError: a file that is missing, or of an unknown kind.
        """
        if folder == STDIO:
            raise ConfigError("output", folder, "a folder, as --shard-rows writes many files")
        if os.path.exists(folder) and not os.path.isdir(folder):
            raise ConfigError("output", folder, "a folder, as --shard-rows writes many files (it is a file)")
        kinds = {log_format(path, input_format, InputError) for path in paths}
        if output_format is None:
            by_name = strip_compression(folder.rstrip(os.sep))[0].lower()
            output_format = next((kind for kind in ("jsonl", "parquet") if by_name.endswith(f".{kind}")), None)
            output_format = output_format or ("parquet" if kinds == {"parquet"} else "jsonl")
        if output_format not in ("jsonl", "parquet"):
            raise ConfigError("output-format", output_format, "jsonl or parquet, which --shard-rows writes")
        real = Path(os.path.realpath(folder))
        for path in paths:
            if real in Path(os.path.realpath(path)).parents:
                raise ConfigError("output", folder, f"a folder without the input's files (it holds {path})")
        files = tuple(FileIdentity.of(path) for path in paths)
        return cls(options, files, folder, shard_rows, input_format, output_format)  # type: ignore[arg-type]

    @property
    def paths(self) -> list[str]:
        """Names of the input's files."""
        return [file.path for file in self.files]

    @property
    def is_parquet(self) -> bool:
        """Whether all files of the input are Parquet."""
        return all(log_format(path, self.input_format, InputError) == "parquet" for path in self.paths)

    def part_path(self, number: int) -> Path:
        """The file of a shard."""
        return Path(self.folder) / f"part-{number:05}.{self.output_format}"

    def to_json(self) -> dict[str, Any]:
        """JSON values, for `from_json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """What `to_json` gave, in another process."""
        options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["options"].items()}
        files = tuple(FileIdentity(**file) for file in values["files"])
        return cls(**{**values, "options": RouteOptions(**options), "files": files})
