"""The output folder of a run: locked, with its manifest, its journal and nothing half-written."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gpu_select.errors import ConfigError, InputError
from gpu_select.files import TEMPORARY, atomic_write, remove_file, writing
from gpu_select.shards.job import FileIdentity, Job
from gpu_select.shards.lock import LOCK, take_lock
from gpu_select.shards.manifest import MANIFEST, Manifest, ShardRecord, options_of

__all__ = ["RunFolder"]

_JOURNAL = ".journal"


class RunFolder:
    """The folder of one run; a context manager that holds the lock on it.

    Args:
        job: what is to be done in it.

    Attributes:
        records: the shards that were finished by earlier runs, by number. Their files have not been looked at.
        changed: numbers of input files that are not as they were, and may still hold the same rows where shards were
            made of them.
        lock: descriptor of the lock, which other processes of the run are to hold as well.

    Raises:
        ConfigError: the folder was begun with other options or files, or holds something else.
        OutputError: another process is at work in it, or it cannot be written.
        InputError, FileFormatError: what it holds cannot be read.
    """

    def __init__(self, job: Job) -> None:
        self.path = Path(job.folder)
        self.records: dict[int, ShardRecord] = {}
        self.changed: frozenset[int] = frozenset()
        self._job = job
        self._manifest: Manifest | None = None
        self._damaged: list[str] = []  # noted before there was a manifest
        self._journal: int | None = None
        self._made = not self.path.exists()
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self.lock = take_lock(self.path)
        try:
            self.remove_leftovers()
            self._read()
        except BaseException:
            self.close()
            raise

    # ---------------------------------------------------------------- what an earlier run left

    def _read(self) -> None:
        path = self.path / MANIFEST
        data = _read_bytes(path)
        if data is None:
            others = sorted(entry.name for entry in self.path.iterdir() if entry.name not in (LOCK, _JOURNAL))
            if others:
                raise ConfigError("output", str(self.path), f"a new or empty folder (it holds {others[0]})")
            remove_file(self.path / _JOURNAL)
            return
        manifest = Manifest.from_bytes(data, path)
        difference = manifest.difference(options_of(self._job), self._job.paths)
        if difference is not None:
            raise self._refused(difference)
        records = {record.number: record for record in manifest.shards}
        damaged = self._read_journal(records)
        self.changed = self._compare_files(manifest.inputs, damaged)
        self._manifest = dataclasses.replace(manifest, inputs=self._job.files)
        self.records = records

    def _read_journal(self, records: dict[int, ShardRecord]) -> set[str]:
        """Add the journal's records; the input files that stopped a run. Its last line may be cut off."""
        damaged: set[str] = set()
        data = _read_bytes(self.path / _JOURNAL) or b""
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            try:
                values = json.loads(line)
                if "damaged" in values:
                    damaged.add(str(values["damaged"]))
                else:
                    record = ShardRecord.from_json(values)
                    records[record.number] = record
            except (ValueError, TypeError, LookupError) as error:
                raise InputError(
                    f"cannot read {self.path / _JOURNAL}: damaged ({error}); remove it to make its shards anew"
                ) from error
        with writing(self.path):
            if data and not data.endswith(b"\n"):
                os.truncate(self.path / _JOURNAL, data.rfind(b"\n") + 1)
        return damaged

    def _compare_files(self, before: tuple[FileIdentity, ...], damaged: set[str]) -> frozenset[int]:
        changed = []
        for i, (was, now) in enumerate(zip(before, self._job.files, strict=True)):
            if was.n_bytes != now.n_bytes and was.path not in damaged:
                raise self._refused(f"the size of {now.path} was {was.n_bytes:,} bytes, is {now.n_bytes:,}")
            if was != now:
                changed.append(i)
        return frozenset(changed)

    def _refused(self, difference: str) -> ConfigError:
        return ConfigError.joined(
            [f"{self.path} was begun by another run: {difference}; go on with what it was, or give another --output"]
        )

    # ---------------------------------------------------------------- the run

    def begin(self, router: Mapping[str, Any], versions: Mapping[str, Any]) -> None:
        """Settle what routes: write the manifest, or compare it with the one that there is.

        Raises:
            ConfigError: the shards that there are come from another router.
            OutputError: the manifest cannot be written.
        """
        if self._manifest is None:
            self._manifest = Manifest(self._job.files, options_of(self._job), router, versions)
            self._write_manifest(self._manifest)
            for path in self._damaged:
                self.note_damage(path)
            return
        difference = self._manifest.other_router(router, versions)
        if difference is not None:
            raise self._refused(difference)

    def has_file_of(self, record: ShardRecord) -> bool:
        """Whether a shard's file is there, of the size and sha256 that its record says."""
        path = self._job.part_path(record.number)
        try:
            if path.stat().st_size != record.n_bytes:
                return False
            with open(path, "rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest() == record.sha256
        except OSError:
            return False

    def add(self, record: ShardRecord) -> None:
        """Note that a shard is finished; its file is there.

        Raises:
            OutputError: the journal cannot be written.
        """
        self._append(record.to_json())

    def note_damage(self, path: str) -> None:
        """Note that an input file stopped the run, so that a cured one will be let in."""
        if self._manifest is None:
            self._damaged.append(path)
        else:
            self._append({"damaged": path})

    def finish(self, records: Mapping[int, ShardRecord], failed: Mapping[int, str]) -> None:
        """Write the manifest with all records, and do without the journal.

        Raises:
            OutputError: it cannot be written.
        """
        assert self._manifest is not None
        self._write_manifest(
            dataclasses.replace(
                self._manifest,
                complete=not failed,
                shards=tuple(records[number] for number in sorted(records)),
                failed={self._job.part_path(number).name: failed[number] for number in sorted(failed)},
            )
        )
        remove_file(self.path / _JOURNAL)

    def remove_leftovers(self) -> None:
        """Remove what processes left half-written."""
        for path in self.path.glob(TEMPORARY):
            remove_file(path)

    def _append(self, values: Mapping[str, Any]) -> None:
        line = json.dumps(values).encode() + b"\n"
        with writing(self.path / _JOURNAL):
            if self._journal is None:
                self._journal = os.open(self.path / _JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            while line:
                line = line[os.write(self._journal, line) :]
            os.fsync(self._journal)

    def _write_manifest(self, manifest: Manifest) -> None:
        with atomic_write(self.path / MANIFEST) as stream:
            stream.write(manifest.to_bytes())

    # ---------------------------------------------------------------- the lock

    def close(self) -> None:
        """Let go of the folder. One that was made and got no manifest goes as well."""
        if self._journal is not None:
            os.close(self._journal)
        with contextlib.suppress(OSError):
            os.unlink(self.path / LOCK)
        os.close(self.lock)
        if self._made:
            with contextlib.suppress(OSError):  # it holds something
                self.path.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _read_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
