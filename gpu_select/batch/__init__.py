"""The router as a callable over batches of columns, for engines that own the rows: Ray Data, Spark, plain Python."""

from __future__ import annotations

from gpu_select.batch.router_batch import RouterBatch

__all__ = ["RouterBatch"]
