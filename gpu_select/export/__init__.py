"""A router, or its selector alone, as one compiled file that runs without this project (AOTInductor)."""

from gpu_select.export.package import Exported, check_compiler, export_router, export_selector

__all__ = ["Exported", "check_compiler", "export_router", "export_selector"]
