"""From a program to a .pt2 file: exported, compiled, described, tried out, and only then put in its place."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpu_select import __version__, jsonio
from gpu_select.domains import WIRE_ORDER
from gpu_select.errors import ConfigError, ExportError
from gpu_select.export.programs import Program, RouterProgram, SelectorProgram, outputs
from gpu_select.files import atomic_path
from gpu_select.router import Router
from gpu_select.selectors import Selector

__all__ = ["Exported", "check_compiler", "export_router", "export_selector"]

_FORMAT = 1
_KEY = "gpu_select"
"""Of the metadata: AOTInductor's own are beside it."""

_TOKENIZER = "extra/tokenizer.json"
_CHECKED = (1, 2, 7, 64)
"""Batch sizes that are tried out."""
_MOST_DIFFERENT = 0.02
"""Near ties may be decided otherwise; anything more is a fault."""

_PORTABLE = {"cpp.simdlen": 256, "cpp.march": "x86-64-v3"}


@dataclass(frozen=True)
class Exported:
    """A package that was written."""

    path: str
    n_bytes: int
    compile_s: float
    load_s: float
    """Of loading it in this process, where torch is there already."""
    n_checked: int
    """Decisions that were compared with eager mode."""
    n_different: int
    metadata: dict[str, Any]


def export_selector(
    selector: Selector,
    path: str | Path,
    *,
    takes_candidates: bool = False,
    portable: bool = False,
    encoder_name: str | None = None,
) -> Exported:
    """Write a selector as a package that takes features.

    Args:
        selector: on the device that the package is for; not deterministic, and not searching with FAISS.
        path: ends in .pt2; it appears when it is complete and tried out.
        takes_candidates: whether the package has a second input, (B, M) bool, of models to choose from.
        portable: for any x86-64 CPU with AVX2, instead of for CPUs like this one.
        encoder_name: of the encoder of the embeddings, if it is known, for the metadata.

    Raises:
        ExportError: no compiler, it or torch fails, or the package decides otherwise than the selector.
        ConfigError: a selector or path that cannot be exported.
        OutputError: the file cannot be written.
    """
    program = SelectorProgram(selector, takes_candidates=takes_candidates)
    return _export(program, Path(path), {"kind": "selector", "encoder": {"name": encoder_name}}, portable, None)


def export_router(
    router: Router, path: str | Path, *, takes_candidates: bool = False, portable: bool = False
) -> Exported:
    """Write a router as a package that takes tokens; its tokenizer is in the package, too.

    Args:
        router: as the selector there.
        path, takes_candidates, portable: as there; the mask is the fourth input.

    Raises:
        ExportError, ConfigError, OutputError: as there.
    """
    program, encoder = RouterProgram(router, takes_candidates=takes_candidates), router.encoder
    about = {
        "kind": "full",
        "encoder": {
            "name": encoder.name,
            "revision": encoder.revision,
            "fingerprint": encoder.fingerprint,
            "dtype": str(encoder.dtype).removeprefix("torch."),
            "prefix": encoder.settings.prefix,
            "max_length": encoder.settings.max_length,
            "pad_id": encoder.tokenizer.pad_id,
            "tokenizer": _TOKENIZER,
        },
    }
    return _export(program, Path(path), about, portable, encoder.tokenizer.to_json())


def check_compiler() -> None:
    """Refuse where AOTInductor has no C++ compiler.

    Raises:
        ExportError: there is none.
    """
    wanted = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(wanted.split()[0]) is None:
        raise ExportError(
            f"export: needs a C++ compiler, and there is no {wanted}: install one (apt-get install g++), or name "
            "another in the environment variable CXX; to run a package takes none"
        )


def _export(program: Program, path: Path, about: dict[str, Any], portable: bool, tokenizer: str | None) -> Exported:
    _check(program, path, portable)
    check_compiler()
    metadata = _metadata(program, about)
    options: dict[str, Any] = {
        # constants are folded and packed for oneDNN, without which products on a CPU take twice as long
        "freezing": True,
        "aot_inductor.metadata": {_KEY: jsonio.dumps(metadata).decode()},
        **(_PORTABLE if portable else {}),
    }
    program.eval()
    with tempfile.TemporaryDirectory() as folder, atomic_path(path) as hidden:
        package = Path(folder) / path.name
        start = time.perf_counter()
        with _one_line(), _quiet(), torch.inference_mode(False), torch.no_grad():
            _compile(program, package, folder, options)
        compile_s = time.perf_counter() - start
        if tokenizer is not None:
            _add(package, _TOKENIZER, tokenizer)
        start = time.perf_counter()
        with _one_line():
            loaded = torch._inductor.aoti_load_package(str(package))
        load_s = time.perf_counter() - start
        n_checked, n_different = _compare(program, loaded)
        shutil.copyfile(package, hidden)
    return Exported(str(path), path.stat().st_size, compile_s, load_s, n_checked, n_different, metadata)


def _check(program: Program, path: Path, portable: bool) -> None:
    if path.suffix != ".pt2":
        raise ConfigError("output", str(path), "a name that ends in .pt2")
    deterministic = program.selector.deterministic
    if isinstance(program, RouterProgram):
        deterministic = deterministic or program.encoder.deterministic
    if deterministic:
        raise ConfigError("export", "a deterministic router", "one that is not: a compiler orders sums as it likes")
    if getattr(getattr(program.selector, "index", None), "backend", "torch") != "torch":
        raise ConfigError("export", "KNN with the backend faiss", "the backend torch: FAISS cannot be compiled")
    if portable and (program.selector.device.type != "cpu" or not _has_march()):
        got = f"{program.selector.device} with torch {torch.__version__}"
        raise ConfigError("portable", got, "a CPU, and a torch that can compile for others (2.13 or newer)")


def _has_march() -> bool:
    """Whether this torch can compile for another CPU than its own."""
    return hasattr(torch._inductor.config.cpp, "march")


def _metadata(program: Program, about: dict[str, Any]) -> dict[str, Any]:
    models = list(program.selector.models)
    inputs = [
        {
            "name": one.name,
            "dtype": str(one.dtype).removeprefix("torch."),
            "shape": list(one.shape),
            "about": one.about,
        }
        for one in program.inputs
    ]
    return {
        "format": _FORMAT,
        "gpu_select": __version__,
        "torch": torch.__version__,
        "device": program.selector.device.type,
        "algorithm": program.selector.algorithm,
        "models": models,
        "domains": list(WIRE_ORDER),
        "inputs": inputs,
        "outputs": outputs(len(models)),
        **about,
    }


def _compile(program: Program, package: Path, folder: str, options: dict[str, Any]) -> None:
    from torch._inductor.utils import fresh_cache

    sizes = program.dims
    shapes = tuple(
        {i: sizes[size] for i, size in enumerate(one.shape) if isinstance(size, str)} for one in program.inputs
    )
    exported = torch.export.export(program, program.example(), dynamic_shapes=shapes)
    failure = None
    with fresh_cache(dir=folder):  # what lies there is as large as the package, and is not needed again
        try:
            torch._inductor.aoti_compile_and_package(exported, package_path=str(package), inductor_configs=options)
        except Exception as error:  # which it would report, as if the cache were to be kept
            failure = error
    if failure is not None:
        raise failure


def _add(package: Path, name: str, text: str) -> None:
    """A file of our own beside the model's, in the folder that the format has for them."""
    with zipfile.ZipFile(package, "a", zipfile.ZIP_STORED) as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/{name}", text)


def _compare(program: Program, loaded: Any) -> tuple[int, int]:
    """How many decisions on made-up queries were compared, and how many differ."""
    n_checked = n_different = 0
    for seed, n_queries in enumerate(_CHECKED):
        inputs = program.example(n_queries, seed)
        with torch.inference_mode():
            expected: dict[str, Tensor] = program(*inputs)
            with _one_line():
                got: dict[str, Tensor] = loaded(*inputs)
        near = torch.isclose(got["score"], expected["score"], rtol=1e-3, atol=1e-3)
        n_different += int((~near | (got["model"] != expected["model"])).sum())
        n_checked += n_queries
    if n_different > _MOST_DIFFERENT * n_checked:
        raise ExportError(
            f"export: the compiled package decides otherwise than eager mode on {n_different} of {n_checked} made-up "
            f"queries, so that nothing was written; try another version of torch than {torch.__version__}"
        )
    return n_checked, n_different


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Errors of torch's compilers, which raise nearly every type, as one line."""
    try:
        yield
    except (ExportError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise ExportError(
            f"export: torch {torch.__version__} cannot compile this router ({type(error).__name__}: {lines[0]:.300})"
        ) from error
