import gzip
import io
import mmap
import os
import stat
import subprocess
import sys
import tracemalloc
from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.errors import InputError, MissingDependencyError, OutputError
from gpu_select.files import atomic_path, atomic_write, check_target, open_read, remove_file, strip_compression

TEXT = b"".join(b"line %d of a text that compresses\n" % i for i in range(5000))


PACKED = [".gz", pytest.param(".zst", marks=pytest.mark.skipif(not find_spec("zstandard"), reason="no zstandard"))]

any_ending = pytest.mark.parametrize("ending", ["", *PACKED])
packed_ending = pytest.mark.parametrize("ending", PACKED)


def read(path):
    with open_read(path) as stream:
        return stream.read()


def write(path, data):
    with atomic_write(path) as stream:
        stream.write(data)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("log.csv", ("log.csv", "")),
        ("log.csv.gz", ("log.csv", ".gz")),
        ("LOG.CSV.ZST", ("LOG.CSV", ".zst")),
        ("a.gz/log", ("a.gz/log", "")),
        ("log.gz.zst", ("log.gz", ".zst")),
    ],
)
def test_compression_is_read_off_the_name(name, expected):
    assert strip_compression(name) == expected


@any_ending
@settings(max_examples=30, deadline=None)  # each example syncs files to the disk
@given(pieces=st.lists(st.binary(max_size=300), max_size=5))
def test_what_was_written_is_read(tmp_path_factory, ending, pieces):
    path = tmp_path_factory.getbasetemp() / f"round_trip{ending}"
    with atomic_write(path) as stream:
        for piece in pieces:
            assert stream.write(piece) == len(piece)
        assert stream.tell() == sum(map(len, pieces))
    assert read(path) == b"".join(pieces)


@any_ending
def test_reading_in_small_steps_gives_the_same(tmp_path, ending):
    path = tmp_path / f"data{ending}"
    write(path, TEXT)
    with open_read(path) as stream:
        pieces = list(iter(lambda: stream.read(777), b""))
    assert b"".join(pieces) == TEXT
    assert max(map(len, pieces)) == 777


def test_only_a_plain_file_can_be_mapped(tmp_path):
    write(tmp_path / "data", TEXT)
    write(tmp_path / "data.gz", TEXT)
    with open_read(tmp_path / "data") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:] == TEXT
    with open_read(tmp_path / "data.gz") as stream, pytest.raises(io.UnsupportedOperation):
        stream.fileno()


def test_a_name_that_cannot_be_read_is_an_input_error(tmp_path):
    for path, reason in [
        (tmp_path / "absent", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (f"{tmp_path}/a\0b", "embedded null byte"),
    ]:
        with pytest.raises(InputError, match=f"^cannot read .*: {reason}$"), open_read(path):
            pass


@packed_ending
def test_a_cut_off_file_is_an_error_wherever_it_is_cut(tmp_path, ending):
    path = tmp_path / f"data{ending}"
    write(path, os.urandom(300_000))
    whole = path.read_bytes()
    for n_bytes in (1, 7, 12, 1000, 200_000, len(whole) - 9, len(whole) - 1):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(InputError, match=rf"^cannot read .*: damaged \{ending} data \(.+\)$"):
            read(path)


@packed_ending
def test_damage_is_an_error_while_reading_not_at_the_end_of_the_block(tmp_path, ending):
    path = tmp_path / f"data{ending}"
    for data in (b"no such format at all", b"\x1f\x8b\x08\x00" + bytes(6) + b"\xff\xff\xff"):
        path.write_bytes(data)
        with open_read(path) as stream, pytest.raises(InputError, match=rf"damaged \{ending} data"):
            stream.read(10)


@packed_ending
def test_garbage_after_the_end_is_an_error(tmp_path, ending):
    path = tmp_path / f"data{ending}"
    write(path, TEXT)
    path.write_bytes(path.read_bytes() + b"garbage")
    with pytest.raises(InputError, match="damaged"):
        read(path)


@packed_ending
def test_concatenated_files_are_read_as_one_and_an_empty_file_is_empty(tmp_path, ending):
    one, both = tmp_path / f"one{ending}", tmp_path / f"both{ending}"
    write(one, TEXT)
    both.write_bytes(one.read_bytes() * 2)
    assert read(both) == TEXT * 2
    both.write_bytes(b"")
    assert read(both) == b""


def test_a_frame_that_unpacks_to_very_much_is_read_in_steps(tmp_path):
    zstandard = pytest.importorskip("zstandard")
    path = tmp_path / "zeros.zst"
    compressor = zstandard.ZstdCompressor().compressobj()
    path.write_bytes(b"".join(compressor.compress(bytes(1 << 20)) for _ in range(256)) + compressor.flush())
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    with open_read(path) as stream:
        n_bytes = sum(map(len, iter(lambda: stream.read(1 << 16), b"")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_bytes == 256 << 20
    assert peak < 80 << 20


def test_errors_that_are_not_about_the_file_keep_their_type(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"")
    with pytest.raises(ConnectionError, match="elsewhere"), open_read(path):
        raise ConnectionError("elsewhere")
    with pytest.raises(ConnectionError, match="elsewhere"), atomic_write(path):
        raise ConnectionError("elsewhere")


@pytest.mark.parametrize("start", [open_read, atomic_write])
def test_without_zstandard_a_zst_file_names_the_package(tmp_path, monkeypatch, start):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    path = tmp_path / "data.zst"
    path.write_bytes(b"old")
    with (
        pytest.raises(MissingDependencyError, match=r"^a \.zst file needs .* pip install 'gpu-select\[zst\]'$"),
        start(path),
    ):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.zst"]
    assert path.read_bytes() == b"old"


@any_ending
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path, ending, error):
    path = tmp_path / f"data{ending}"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path) as stream:
        raise error(stream.write(TEXT))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


def test_the_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "deep" / "folder" / "data"
    with atomic_write(path) as stream:
        stream.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["data"]


def test_a_name_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path, reason in [
        (tmp_path, "it is a folder"),
        (tmp_path / "file" / "data", "(Not a directory|File exists)"),
        (f"{tmp_path}/a\0b", "embedded null byte"),
        ("/proc/no/such", "No such file or directory"),
    ]:
        with pytest.raises(OutputError, match=f"^cannot write .*: {reason}$"), atomic_write(path):
            pass


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match=r"^cannot write /dev/full: No space left on device$"):
        write("/dev/full", TEXT)
    with pytest.raises(OutputError, match=r"^cannot write /dev/full: No space left on device$"):
        write("/dev/full", b"little, that fails only when it is flushed")


def test_a_device_is_written_to_and_stays(tmp_path):
    write("/dev/null", TEXT)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_link_is_followed(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_permissions_are_those_of_the_old_file_or_of_the_umask(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"secret")
    old.chmod(0o600)
    mask = os.umask(0o027)
    try:
        write(old, b"secret")
        write(new, b"open")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(old.stat().st_mode) == 0o600
    assert stat.S_IMODE(new.stat().st_mode) == 0o640


def test_the_same_content_gives_the_same_gz_bytes(tmp_path):
    first, second = tmp_path / "first.gz", tmp_path / "second.gz"
    write(first, TEXT)
    write(second, TEXT)
    assert first.read_bytes() == second.read_bytes()
    assert gzip.decompress(first.read_bytes()) == TEXT


def test_a_minus_is_standard_input_and_output(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT)))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    write("-", read("-"))
    assert sys.stdout.buffer.getvalue() == TEXT
    assert not sys.stdin.closed


def test_closed_standard_streams_are_errors(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(InputError, match=r"^cannot read standard input: it is closed$"):
        read("-")
    with pytest.raises(OutputError, match=r"^cannot write standard output: it is closed$"):
        write("-", b"")


def test_a_reader_that_goes_away_is_one_error_and_silence_at_exit():
    script = (
        "from gpu_select.errors import OutputError\n"
        "from gpu_select.files import atomic_write\n"
        "import sys\n"
        "try:\n"
        "    with atomic_write('-') as stream:\n"
        "        for _ in range(1000): stream.write(bytes(10_000))\n"
        "except OutputError as error:\n"
        "    print(error, file=sys.stderr)\n"
        "    sys.exit(3)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    message = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 3
    assert message == "cannot write standard output: Broken pipe\n"


def test_a_file_is_removed_where_there_is_one(tmp_path):
    (tmp_path / "x").touch()
    assert remove_file(tmp_path / "x")
    assert not remove_file(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_removed_is_one_line(tmp_path):
    with pytest.raises(OutputError, match=rf"cannot remove {tmp_path}: Is a directory"):
        remove_file(tmp_path)


@any_ending
def test_reading_begins_behind_an_offset(tmp_path, ending):
    with atomic_write(tmp_path / f"data{ending}") as stream:
        stream.write(bytes(range(256)) * 3000)
    for offset in (0, 1, 700_000, 256 * 3000, 10**9):
        with open_read(tmp_path / f"data{ending}", offset=offset) as stream:
            assert stream.read() == (bytes(range(256)) * 3000)[offset:]


def write_by_name(path, data):
    with atomic_path(path) as hidden:
        hidden.write_bytes(data)


def test_a_library_that_writes_to_a_name_does_so_under_another(tmp_path):
    path = tmp_path / "new" / "model.pt2"
    with atomic_path(path) as hidden:
        assert hidden.suffix == ".pt2"
        assert hidden.parent == path.parent
        hidden.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    path.chmod(0o640)
    (tmp_path / "link.pt2").symlink_to(path)
    write_by_name(tmp_path / "link.pt2", b"again")
    assert path.read_bytes() == b"again"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(path.parent) == ["model.pt2"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_breaks_off_under_the_other_name_leaves_nothing(tmp_path, error):
    (tmp_path / "x").write_bytes(b"before")

    def half(path):
        with atomic_path(path) as hidden:
            hidden.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        half(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["x"]


def test_places_where_no_library_can_write(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for name, reason in ((tmp_path, "it is a folder"), (tmp_path / "file" / "x", ""), ("a\0b", "embedded null")):
        with pytest.raises(OutputError, match=f"cannot write .*{reason}"):
            write_by_name(name, b"x")
    with pytest.raises(OutputError, match="No such file or directory"), atomic_path(tmp_path / "never"):
        pass  # the library wrote nothing


def test_a_name_that_can_be_written_is_left_as_it_is(tmp_path):
    (tmp_path / "file").write_bytes(b"before")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "x")
    for name in ("file", "new", "folder/new", "link"):
        check_target(tmp_path / name)
    for name in ("-", "/dev/null"):
        check_target(name)
    assert (tmp_path / "file").read_bytes() == b"before"
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "file", "folder", "link"]
    for name, reason in ((tmp_path, "it is a folder"), (tmp_path / "file" / "x", ""), ("a\0b", "embedded null")):
        with pytest.raises(OutputError, match=f"cannot write .*{reason}"):
            check_target(name)
