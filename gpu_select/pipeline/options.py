"""How a log is to be routed, as plain values: what the command line says, and what can be sent to other processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gpu_select.pipeline.windows import DOMAIN_FIELDS

__all__ = ["FEW_SHAPES", "SAME_BITS", "RouteOptions"]

FEW_SHAPES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32", "LRU_CACHE_CAPACITY": "32"}
"""Environment variables for processes that route logs, to be set before torch computes. On x86 CPUs two caches keep up
to 1,024 compiled kernels each, one a shape, while the batches of a log hardly ever have the same shape twice: memory
would grow by hundreds of MB over a large log. The layers of one batch fit in.
"""

SAME_BITS = {"MKL_CBWR": "AUTO,STRICT"}
"""The same, so that the order of sums hangs neither on how many threads there are nor on where in memory their scratch
lies: else attention on x86 CPUs gives other last bits with another number of threads. Measured to cost no time.
"""


@dataclass(frozen=True)
class RouteOptions:
    """Which router, and which fields of a row it reads and keeps."""

    models: str = "models/"
    """A folder of selector files, or one file."""
    algorithm: str | None = None
    """Which file of the folder: knn, kmeans, svm or mlp."""
    config: str | None = None
    """A config.yaml whose decisions route, instead of one selector."""
    candidates: tuple[str, ...] | None = None
    """Models to choose from; None for all."""
    query_field: str = "query"
    """Where the text stands."""
    embedding_field: str | None = None
    """Where a ready embedding stands; with it, there is neither text nor encoder."""
    domain_field: str | None = None
    """Where the domain stands; None for the first of `DOMAIN_FIELDS`."""
    keep: tuple[str, ...] | None = None
    """Input fields to keep; None for all."""
    embedding_model: str | None = None
    """The encoder; None for the one that the files name."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the encoder."""
    token_budget: int | None = None
    """Tokens that the encoder takes at once; None for what suits the device."""
    knn_backend: Literal["torch", "faiss"] = "torch"
    """What searches KNN's rows."""
    deterministic: bool = False
    """Whether a query gets the same decision, bit for bit, in whatever batch it is."""
    compile_layers: bool = False
    """Whether torch.compile fuses the encoder's layers."""
    cache_dir: str | None = None
    """Folder of embeddings that are already known."""

    @property
    def domain_fields(self) -> tuple[str, ...]:
        """Where a row's domain is looked for, in this order."""
        return DOMAIN_FIELDS if self.domain_field is None else (self.domain_field,)

    @property
    def needed_columns(self) -> Sequence[tuple[str, str]]:
        """Names of options, each with the field that it wants every row to have."""
        named = [
            ("query-field", self.query_field if self.embedding_field is None else None),
            ("embedding-field", self.embedding_field),
            ("domain-field", self.domain_field),
            *(("keep", name) for name in self.keep or ()),
        ]
        return [(option, name) for option, name in named if name is not None]
