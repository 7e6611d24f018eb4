"""How long does a 100 MB knn_model.json take to read, and how much memory?

    python bench/read_file.py [--without-orjson]

Median of 5 reads in this process; memory is the growth of the peak resident set over the first read (the file's own
mapped pages included), as a multiple of the float32 array that comes out.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

WITHOUT = "--without-orjson"
if WITHOUT in sys.argv:
    sys.modules["orjson"] = None  # type: ignore[assignment]

from common import save  # noqa: E402 - orjson is hidden first

from gpu_select.wire import KNNFile, read_selector_file, write_selector_file  # noqa: E402

N_ROWS, DIM = 7_800, 1038
REPEATS = 5


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "knn_model.json"
        _write(path)
        size = path.stat().st_size
        before = _peak_bytes()
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            document = read_selector_file(path)
            times.append(time.perf_counter() - start)
            if len(times) == 1:
                growth = _peak_bytes() - before
    array = document.embeddings_ND.nbytes
    seconds = median(times)
    print(
        f"{size / 1e6:.0f} MB in {seconds:.2f} s; peak memory {growth / array:.2f} x the array of {array / 1e6:.0f} MB"
    )
    name = "read-file" + ("-without-orjson" if WITHOUT in sys.argv else "")
    save(name, {"repeats": REPEATS, "file_mb": size / 1e6, "seconds": seconds, "memory_over_array": growth / array})


def _write(path: Path) -> None:
    # in another process: what writing took must not hide what reading takes
    import multiprocessing

    process = multiprocessing.get_context("fork").Process(target=_write_here, args=(path,))
    process.start()
    process.join()


def _write_here(path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((N_ROWS, DIM)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = [f"model-{i % 6}" for i in range(N_ROWS)]
    latencies = rng.integers(1, 10**10, N_ROWS)
    write_selector_file(path, KNNFile(5, rows, labels, rng.random(N_ROWS), latencies))


def _peak_bytes() -> int:
    # macOS counts in bytes, Linux in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
