"""domain_model.safetensors, the file of a domain head, to and from plain arrays; no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from gpu_select import jsonio
from gpu_select.domains import DOMAIN_NAMES
from gpu_select.errors import FileFormatError, InputError, brief
from gpu_select.files import atomic_write

__all__ = ["DOMAIN_FILE", "DomainFile", "read_domain_file", "write_domain_file"]

DOMAIN_FILE = "domain_model.safetensors"
"""Its name in a folder of selector files."""

_KEY = "gpu_select"
_MAX_BYTES = 1 << 26
_MAX_MAGNITUDE = 1e12


@dataclass(frozen=True, eq=False)
class DomainFile:
    """Logits of C domains = weight_Cd @ embedding + bias_C, for unit embeddings of d dimensions."""

    domains: tuple[str, ...]
    weight_Cd: NDArray[np.float32]
    bias_C: NDArray[np.float32]
    own: dict[str, Any] = field(default_factory=dict)
    """Where it comes from, as in selector files: the encoder with its fingerprint, and the data."""


def write_domain_file(path: str | Path, document: DomainFile) -> None:
    """Write the file; the same contents give the same bytes.

    Raises:
        OutputError: it cannot be written.
    """
    about = jsonio.dumps({"domains": list(document.domains), **document.own}).decode()
    arrays = {"weight": document.weight_Cd, "bias": document.bias_C}
    # one entry only: the library writes several in no fixed order
    data = save({name: np.ascontiguousarray(a, np.float32) for name, a in arrays.items()}, {_KEY: about})
    with atomic_write(path) as stream:
        stream.write(data)


def read_domain_file(path: str | Path) -> DomainFile:
    """Read and check the file.

    Raises:
        InputError: it is missing or cannot be read.
        FileFormatError: it is no domain head: damaged, other tensors, shapes or dtypes, numbers that are not finite,
            or names that are none of the documented ones.
    """
    try:
        size = os.stat(path).st_size
        if size > _MAX_BYTES:
            raise FileFormatError(path, "size", f"at most {_MAX_BYTES >> 20} MiB", f"{size >> 20} MiB")
        with safe_open(str(path), framework="numpy") as tensors:
            about = (tensors.metadata() or {}).get(_KEY)
            found = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - no mapping
            shapes = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in found.items()}
            _check_shapes(path, shapes)
            weight_Cd, bias_C = (tensors.get_tensor(name) for name in ("weight", "bias"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or brief(str(error))}") from error
    except SafetensorError as error:
        raise FileFormatError(path, "contents", "a safetensors file", brief(str(error))) from error
    for name, array in (("weight", weight_Cd), ("bias", bias_C)):
        if not (np.abs(array) <= _MAX_MAGNITUDE).all():  # NaN fails, too
            raise FileFormatError(path, name, f"finite numbers of at most {_MAX_MAGNITUDE:g}", "another one")
    own = _about(path, about)
    domains = own.pop("domains", None)
    if (
        not isinstance(domains, list)
        or len(domains) != len(bias_C)
        or len({*map(str, domains)}) != len(domains)
        or not all(name in DOMAIN_NAMES for name in domains)
    ):
        expected = f"{len(bias_C)} different names of {', '.join(DOMAIN_NAMES)}"
        raise FileFormatError(path, f"{_KEY}.domains", expected, brief(domains))
    return DomainFile(tuple(domains), weight_Cd, bias_C, own)


def _check_shapes(path: str | Path, shapes: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    if sorted(shapes) != ["bias", "weight"]:
        raise FileFormatError(path, "tensors", "weight and bias", brief(sorted(shapes)))
    for name, (dtype, _) in shapes.items():
        if dtype != "F32":
            raise FileFormatError(path, name, "dtype F32", brief(dtype))
    weight, bias = shapes["weight"][1], shapes["bias"][1]
    if len(weight) != 2 or not 2 <= weight[0] <= len(DOMAIN_NAMES) or weight[1] < 1:
        expected = f"shape (C, d) for 2 to {len(DOMAIN_NAMES)} domains"
        raise FileFormatError(path, "weight", expected, brief(weight))
    if bias != weight[:1]:
        raise FileFormatError(path, "bias", f"shape {weight[:1]}, one a row of weight", brief(bias))


def _about(path: str | Path, text: str | None) -> dict[str, Any]:
    try:
        about = jsonio.loads((text or "").encode())
    except ValueError:
        about = None
    if not isinstance(about, dict):
        raise FileFormatError(path, f"metadata {_KEY}", "a JSON object", "nothing" if text is None else brief(text))
    return about
