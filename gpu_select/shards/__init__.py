"""A log of any size into a folder of shards: resumable, and shared among processes.

    folder/manifest.json       what the run is: input files, options, fingerprints of router and encoder, versions
    folder/.journal            a line a finished shard, appended and fsynced; gone at the end
    folder/part-00000.parquet  shard 0: the input's rows 0 to N-1, routed
    folder/.lock               held by the run's processes; gone at the end

A **shard** is N rows of the input, which is all its files one behind the other (`plan`). It is routed as a unit:
windows and batches begin with it, so that what comes out hangs on its rows, the router and the options, and neither
on the shards before it, nor on how many processes there are, nor on where a run went on (`routing`). Its file appears
under its name only when it is complete and synced; then its record goes to the journal, with the size and sha256 of
the file and of the rows it was made of.

A **run** that finds a manifest compares it with what it is about to do, and refuses what differs by name
(`manifest`). It takes over the shards of the journal whose files still have their size and sha256, and makes the
others; at the end the manifest gets all records, in order, and no times or counts of processes: the folder has the
bytes that it would have without any interruption. Files that changed are refused by size. Where only the time of
modification differs, or where a file stopped the run because it was damaged, what finished shards were made of is
read again and compared.

**Finding the rows again.** Records say where a shard begins and ends: bytes in text files, rows in Parquet. Finished
shards are jumped over in plain files and Parquet. Compressed files have to be unpacked up to the place, but are not
parsed; each process does so once, as it gets its shards in rising order.

**Processes** (`worker`, `pool`, `run`): one a GPU, or as many as asked for, each a Python of its own (never forked)
that speaks JSON lines over its pipes, so that the same code runs on any device. The first process plans, keeps the
journal and loads no encoder. A shard whose process dies goes to another one; after the second failure it is left out
and reported. Errors of input and output stop the run once the shards under way are done. A process whose pipe closes
ends at once: none outlives the first.

Other drivers can use `Job`, `plan_shards` and `ShardRouter.route`, which routes one shard, with a `RunFolder` of
theirs.
"""

from __future__ import annotations

from gpu_select.shards.folder import RunFolder
from gpu_select.shards.job import FileIdentity, Job
from gpu_select.shards.manifest import Manifest, ShardRecord
from gpu_select.shards.plan import Shard, Span, plan_shards

__all__ = ["FileIdentity", "Job", "Manifest", "RunFolder", "Shard", "ShardRecord", "Span", "plan_shards"]
