"""The exception tree: every error that a user can cause is a `GpuSelectError` whose text is one line."""

from __future__ import annotations

from typing import Any, TypeVar

__all__ = [
    "CandidateError",
    "ConfigError",
    "DataError",
    "DecisionError",
    "DeviceError",
    "DimensionError",
    "EncoderError",
    "EncoderMismatchError",
    "ExportError",
    "FileFormatError",
    "GpuSelectError",
    "HubError",
    "InputError",
    "IsolationError",
    "MissingDependencyError",
    "OutputError",
    "brief",
]

_E = TypeVar("_E", bound="GpuSelectError")


def brief(value: object, limit: int = 80) -> str:
    """`repr(value)` on one line, cut to `limit` characters, for use in an error's text."""
    if isinstance(value, (str, bytes)):
        value = value[: limit + 1]  # before repr, so that a huge text costs nothing
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


class GpuSelectError(Exception):
    """Base of all errors that users can cause. The text is one line: what, where, expected, got, and the cure."""

    def __reduce__(self) -> tuple[Any, ...]:
        # what a subclass was made of has gone into its text, which is all that other processes need
        return _with_text, (type(self), str(self))


def _with_text(kind: type[_E], text: str) -> _E:
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    return error


class ConfigError(GpuSelectError, ValueError):
    """A setting holds a value that can never work."""

    def __init__(self, field: str, got: object, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}, got {brief(got)}")

    @classmethod
    def joined(cls, problems: list[str]) -> ConfigError:
        """One error for all problems of a configuration, so that a user mends them in one go."""
        return _with_text(cls, "; ".join(problems))


class FileFormatError(GpuSelectError, ValueError):
    """A selector file breaks the format. Names the file, the field, what was expected and what was found."""

    def __init__(self, path: object, field: str, expected: str, got: str) -> None:
        super().__init__(f"{path}: {field}: expected {expected}, got {got}")


class InputError(GpuSelectError, ValueError):
    """A file or stream that was to be read is missing, unreadable or of an unknown kind."""


class OutputError(GpuSelectError, OSError):
    """A file could not be written. Nothing is left half-written under its name."""


class DataError(GpuSelectError, ValueError):
    """Benchmark records that cannot be used. Names the file and, where there is one, the line."""


class DimensionError(GpuSelectError, ValueError):
    """Features of another width than the selector's file."""


class CandidateError(GpuSelectError, ValueError):
    """A candidate list is empty or names a model that the selector does not know."""


class DecisionError(GpuSelectError, ValueError):
    """A query that no decision can take."""


class EncoderError(GpuSelectError, ValueError):
    """An encoder could not be found, loaded or used."""


class EncoderMismatchError(EncoderError):
    """Selector files that were trained with another encoder than the one in use."""

    @classmethod
    def between(cls, path: object, trained: tuple[str, str], used: tuple[str, str]) -> EncoderMismatchError:
        """For name and fingerprint of the encoder that a file was trained with, and of the one in use."""
        return cls(
            f"{path}: trained with encoder {trained[0]!r} (fingerprint {trained[1][:12]}), "
            f"got {used[0]!r} (fingerprint {used[1][:12]}); route with the first, or train again with the second"
        )


class ExportError(GpuSelectError, RuntimeError):
    """A package could not be compiled, or does not decide as the router does. Nothing was written."""


class DeviceError(GpuSelectError, ValueError):
    """A device that this machine does not have, or that ran out of memory."""


class HubError(GpuSelectError, OSError):
    """A hub of models and data could not be reached, refused, or does not have what was asked for."""


class IsolationError(GpuSelectError, RuntimeError):
    """Code of others cannot be run here without a risk."""


class MissingDependencyError(GpuSelectError, ImportError):
    """An optional package is needed for what was asked."""

    def __init__(self, package: str, purpose: str, install: str) -> None:
        super().__init__(f"{purpose} needs the package {package}, which is not installed: pip install {install}")
