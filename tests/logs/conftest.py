from importlib.util import find_spec

import pytest

from gpu_select.logs import open_log, open_writer


@pytest.fixture(
    params=[
        "",
        ".gz",
        pytest.param(".zst", marks=pytest.mark.skipif(not find_spec("zstandard"), reason="needs zstandard")),
    ],
    scope="session",
)
def packing(request):
    """The ending of a compression."""
    return request.param


@pytest.fixture(scope="session")
def read_rows():
    """All rows of a log, in windows of three rows unless told."""

    def read(path, n_rows=3, **options):
        with open_log(str(path), **options) as reader:
            windows = list(reader.windows(n_rows))
        assert all(0 < len(window) <= n_rows for window in windows)
        return [row for window in windows for row in window]

    return read


@pytest.fixture(scope="session")
def write_rows():
    """Write a log, in windows of three rows unless told."""

    def write(path, rows, n_rows=3, **options):
        with open_writer(str(path), **options) as writer:
            for start in range(0, len(rows), n_rows):
                writer.write(rows[start : start + n_rows])

    return write
