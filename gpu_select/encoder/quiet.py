"""Keep transformers from talking while it loads: what matters reaches the user as an error of our own."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

__all__ = ["quiet"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, log lines or warnings of transformers and its hub client inside the block."""
    from transformers.utils import logging as untyped

    transformers_logging: Any = untyped

    hub_logger = logging.getLogger("huggingface_hub")
    verbosity, hub_level = transformers_logging.get_verbosity(), hub_logger.level
    bars = transformers_logging.is_progress_bar_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers_logging.set_verbosity(transformers_logging.CRITICAL)
        transformers_logging.disable_progress_bar()
        hub_logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            transformers_logging.set_verbosity(verbosity)
            hub_logger.setLevel(hub_level)
            if bars:
                transformers_logging.enable_progress_bar()
