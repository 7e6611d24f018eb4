"""Route each query to the model that should answer it: learned selectors as one batched forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpu_select.errors import GpuSelectError

if TYPE_CHECKING:
    from gpu_select.router import Router, Routes

__all__ = ["GpuSelectError", "Router", "Routes", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # torch and transformers load only when somebody routes: `import gpu_select` costs milliseconds
    if name in ("Router", "Routes"):
        from gpu_select import router

        return getattr(router, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
