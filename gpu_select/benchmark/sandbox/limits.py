"""How much of the machine the code of an answer may use: a process, of which there are two and cannot be more."""

from __future__ import annotations

__all__ = [
    "ASSERTION_S",
    "DISK_BYTES",
    "FILE_BYTES",
    "MEMORY_BYTES",
    "N_FILES",
    "N_THREADS",
    "WALL_S",
]

WALL_S = 10.0
"""For all assertions of an answer together; in CPU time as well."""
ASSERTION_S = 3.0
"""For one assertion, and for loading the answer."""
MEMORY_BYTES = 512 << 20
"""Of address space, which is more than what is used."""
FILE_BYTES = 8 << 20
"""Of one file."""
DISK_BYTES = 16 << 20
"""Of all files together."""
N_FILES = 64
"""That are open at once; besides, that exist, where the working directory is a file system of its own."""
N_THREADS = 64
"""Where the process runs as a user of its own."""
