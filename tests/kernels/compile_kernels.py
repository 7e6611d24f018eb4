"""Compile kernels for a GPU that need not be there: python compile_kernels.py CAPABILITY MODULE...

Writes one line of JSON for each entry of a module's COMPILED. Runs apart from the tests, which have Triton interpret.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def compiled(kernel: Any, types: dict[str, str], constants: dict[str, Any], options: dict[str, Any], target: GPUTarget):
    place = {name: i for i, name in enumerate(kernel.arg_names)}
    signature = {name: "constexpr" if name in constants else types[name].removesuffix(":16") for name in place}
    aligned = {(place[name],): [["tt.divisibility", 16]] for name in place if types.get(name, "").endswith(":16")}
    fixed = {(place[name],): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=fixed, attrs=aligned)
    return triton.compile(source, target=target, options=options)


def stack_bytes(cubin: bytes) -> int | None:
    """What did not fit into registers; None where the tool that tells is not there."""
    tool = TOOLS / "cuobjdump"
    if not tool.exists():
        return None
    path = Path("kernel.cubin")
    path.write_bytes(cubin)
    report = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True).stdout
    return max(int(found) for found in re.findall(r"STACK:(\d+)", report))


def main() -> None:
    target = GPUTarget("cuda", int(sys.argv[1]), 32)
    for module in sys.argv[2:]:
        for number, (kernel, types, constants, options) in enumerate(importlib.import_module(module).COMPILED):
            result = {"module": module, "number": number, "kernel": kernel.fn.__name__}
            try:
                made = compiled(kernel, types, constants, options, target)
                result |= {"shared": made.metadata.shared, "stack": stack_bytes(made.asm["cubin"]), "error": None}
                result["matrix"] = bool(re.search(r"wgmma\.mma_async|\bmma\.sync", made.asm["ptx"]))
            except Exception as error:  # every kernel is tried
                result["error"] = f"{type(error).__name__}: {error}"
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
