"""A file that is not finished yet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_select.download.partial import PartialFile
from gpu_select.errors import OutputError


def test_bytes_are_added_over_several_runs(tmp_path):
    for data in (b"one ", b"two ", b"three"):
        with PartialFile(tmp_path / "new" / "partial") as partial:
            before = partial.n_bytes
            partial.add(data)
            assert partial.n_bytes == before + len(data)
    assert (tmp_path / "new" / "partial").read_bytes() == b"one two three"


def test_it_can_begin_again_and_get_its_name(tmp_path):
    with PartialFile(tmp_path / "partial") as partial:
        partial.add(b"one two")
        partial.clear()
        assert partial.n_bytes == 0
        partial.add(b"three")
        partial.publish(tmp_path / "folder" / "name")
    assert (tmp_path / "folder" / "name").read_bytes() == b"three"
    assert not (tmp_path / "partial").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line():
    with (
        PartialFile(Path("/dev/full")) as partial,
        pytest.raises(OutputError, match=r"^cannot write /dev/full: No space left on device$"),
    ):
        partial.add(b"x")


HOLDER = """
import sys
from pathlib import Path
from gpu_select.download.partial import PartialFile
with PartialFile(Path(sys.argv[1])) as partial:
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="open files protect themselves there")
def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "partial"
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "kernels")])}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(OutputError) as caught, PartialFile(path):
            pass
        assert str(caught.value) == f"cannot write {path}: another download is writing it; wait until that has ended"
        process.communicate(timeout=60)
    with PartialFile(path) as partial:
        partial.add(b"x")


def test_what_another_process_has_just_named_is_left_alone(tmp_path, monkeypatch):
    if sys.platform == "win32":
        pytest.skip("an open file cannot be renamed there")
    import fcntl

    path = tmp_path / "partial"
    path.write_bytes(b"finished")
    lock = fcntl.flock

    def renamed_before(*arguments):
        path.rename(tmp_path / "name")
        return lock(*arguments)

    monkeypatch.setattr(fcntl, "flock", renamed_before)
    with pytest.raises(OutputError, match="another download is writing it"), PartialFile(path):
        pass
    assert (tmp_path / "name").read_bytes() == b"finished"
