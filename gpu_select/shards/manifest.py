"""What a folder of shards tells of itself: manifest.json, and the difference between two of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from gpu_select.errors import FileFormatError, brief
from gpu_select.shards.job import FileIdentity, Job
from gpu_select.shards.plan import Shard, Span

__all__ = ["MANIFEST", "Manifest", "ShardRecord", "options_of"]

MANIFEST = "manifest.json"

_FORMAT = "gpu_select shards"
_VERSION = 1
_NOT_FLAGS = ("models", "algorithm", "config", "embedding_model", "cache_dir")
"""What names files: their contents are compared. A cache changes nothing, as vectors are then deterministic."""


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard."""

    number: int
    rows: int
    n_bytes: int
    """Of its file."""
    sha256: str
    """Of its file."""
    source_sha256: str
    """Of the rows that it was made of."""
    spans: tuple[Span, ...]
    errors: int = 0
    """Rows that could not be routed."""
    first_error: str = ""
    without_domain: int = 0
    renamed: tuple[str, ...] = ()
    share: Mapping[str, int] = field(default_factory=dict)
    """Rows by model."""
    decisions: Mapping[str, int] = field(default_factory=dict)
    """Rows by decision, where decisions route."""

    @property
    def shard(self) -> Shard:
        """Which rows it holds."""
        return Shard(self.number, self.spans)

    def to_json(self) -> dict[str, Any]:
        """JSON values, for `from_json`."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """What `to_json` gave.

        Raises:
            ValueError, TypeError: something else.
        """
        record = cls(**{**values, "spans": tuple(map(Span.from_json, values["spans"]))})
        numbers = [record.number, record.rows, record.n_bytes, record.errors, record.without_domain]
        if not all(type(n) is int and n >= 0 for n in [*numbers, *record.share.values(), *record.decisions.values()]):
            raise ValueError("a shard's counts are numbers")
        if not all(isinstance(text, str) for text in (record.sha256, record.source_sha256, record.first_error)):
            raise ValueError("a shard's digests are texts")
        return dataclasses.replace(record, renamed=tuple(map(str, record.renamed)))


def options_of(job: Job) -> dict[str, Any]:
    """The options that decide what the shards hold, as they are called on the command line."""
    values = {
        "shard_rows": job.shard_rows,
        "input_format": job.input_format,
        "output_format": job.output_format,
        **{key: value for key, value in dataclasses.asdict(job.options).items() if key not in _NOT_FLAGS},
    }
    values["compile"] = values.pop("compile_layers")
    flags = {f"--{key.replace('_', '-')}": value for key, value in values.items()}
    return {flag: list(value) if isinstance(value, tuple) else value for flag, value in flags.items()}


@dataclass(frozen=True)
class Manifest:
    """What a run is, and which shards it has finished."""

    inputs: tuple[FileIdentity, ...]
    options: Mapping[str, Any]
    router: Mapping[str, Any]
    """`LogRouter.fingerprints`."""
    versions: Mapping[str, Any]
    """Of what computes and writes."""
    complete: bool = False
    shards: tuple[ShardRecord, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    """Why shards are missing, by their files' names."""

    def difference(self, options: Mapping[str, Any], paths: Sequence[str]) -> str | None:
        """The first option or input file that is another one in a run of these: what, was, is. None if all are equal.

        Files that are called the same may still have changed.
        """
        for flag in {**self.options, **options}:
            was, now = self.options.get(flag), options.get(flag)
            if was != now:
                return f"{flag} was {_shown(was)}, is {_shown(now)}"
        had = [file.path for file in self.inputs]
        if had != list(paths):
            for was, now in zip(had, paths, strict=False):
                if was != now:
                    return f"--input was {len(had)} files with {was}, is {len(paths)} files with {now} in its place"
            last = had[-1] if len(had) > len(paths) else paths[-1]
            return f"--input was {len(had)} files, is {len(paths)} (with or without {last})"
        return None

    def other_router(self, router: Mapping[str, Any], versions: Mapping[str, Any]) -> str | None:
        """The first file, encoder or version that is another one now: what, was, is. None if all are equal."""
        for what, was, now in _pairs(self.router, router):
            if was != now:
                return f"{what} was {_shown(was)}, is {_shown(now)}"
        for name, was in self.versions.items():
            if was != versions.get(name):
                return f"the version of {name} was {_shown(was)}, is {_shown(versions.get(name))}"
        return None

    def to_bytes(self) -> bytes:
        """The file: readable JSON, one shard a line."""
        about = {
            "format": _FORMAT,
            "version": _VERSION,
            "complete": self.complete,
            "rows": sum(record.rows for record in self.shards),
            "errors": sum(record.errors for record in self.shards),
            "inputs": [dataclasses.asdict(file) for file in self.inputs],
            "options": self.options,
            "router": self.router,
            "versions": self.versions,
            "failed": self.failed,
        }
        text = json.dumps(about, ensure_ascii=False, indent=1).removesuffix("\n}")
        shards = ",".join(f"\n  {json.dumps(record.to_json(), ensure_ascii=False)}" for record in self.shards)
        end = "\n ]" if shards else "]"
        return f'{text},\n "shards": [{shards}{end}\n}}\n'.encode("utf-8", "surrogatepass")

    @classmethod
    def from_bytes(cls, data: bytes, path: object) -> Self:
        """What `to_bytes` gave.

        Args:
            data: the file.
            path: its name, for errors.
        Raises:
            FileFormatError: something else.
        """
        try:
            values = json.loads(data.decode("utf-8", "surrogatepass"))
            if values["format"] != _FORMAT or values["version"] != _VERSION:
                raise ValueError(f"format {brief(values['format'])}, version {brief(values['version'])}")
            parts = [values[key] for key in ("options", "router", "versions", "failed")]
            if not all(isinstance(part, dict) for part in parts):
                raise ValueError("options, router, versions and failed are objects")
            return cls(
                inputs=tuple(FileIdentity(**file) for file in values["inputs"]),
                options=values["options"],
                router=values["router"],
                versions=values["versions"],
                complete=values["complete"] is True,
                shards=tuple(map(ShardRecord.from_json, values["shards"])),
                failed=values["failed"],
            )
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            expected = f"the manifest of shards that this version writes (version {_VERSION}); give another --output"
            raise FileFormatError(path, "the file", expected, brief(str(error))) from error


def _pairs(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What of the routers is compared: name, before and now."""
    had, has = was.get("files") or {}, now.get("files") or {}
    yield "the selector file", " and ".join(sorted(had)), " and ".join(sorted(has))
    for name in had:
        yield f"the sha256 of {name}", had[name], has.get(name)
    yield "the sha256 of the decisions", was.get("decisions"), now.get("decisions")
    before, after = was.get("encoder") or {}, now.get("encoder") or {}
    yield "the encoder's fingerprint", before.get("fingerprint"), after.get("fingerprint")
    yield "the encoder's precision", before.get("precision"), after.get("precision")
    yield "the device", was.get("device"), now.get("device")


def _shown(value: object) -> str:
    """A value in an error: texts as they are, digests by their beginning."""
    if isinstance(value, str) and len(value) == 64:
        return f"{value[:12]}..."
    return "not given" if value is None else brief(value) if not isinstance(value, str) else value
