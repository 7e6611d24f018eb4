from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from gpu_select.encoder import EmbeddingCache
from gpu_select.encoder import cache as cache_module
from gpu_select.errors import OutputError

MODEL = "ab" * 32


def vectors_of(texts: list[str], dim: int = 5) -> NDArray[np.float32]:
    """A unit vector a text, the same every time."""
    rows = [np.random.default_rng(list(text.encode("utf-8", "surrogatepass"))).normal(size=dim) for text in texts]
    return np.array([row / np.linalg.norm(row) for row in rows], dtype=np.float32).reshape(len(texts), dim)


def open_cache(folder: Path, fingerprint: str = MODEL, dtype: str = "float32", dim: int = 5) -> EmbeddingCache:
    return EmbeddingCache(folder, fingerprint, dtype, dim)


def fill(folder: Path, texts: list[str]) -> None:
    with open_cache(folder) as cache:
        cache.put(texts, vectors_of(texts))


def shards(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def assert_holds(cache: EmbeddingCache, texts: list[str], expected: list[bool]) -> None:
    vectors, found = cache.get(texts)
    assert found.tolist() == expected
    assert (vectors.shape, vectors.dtype, found.dtype) == ((len(texts), 5), np.float32, np.bool_)
    np.testing.assert_array_equal(vectors, vectors_of(texts) * found[:, None])


def test_vectors_come_back_from_memory_and_from_disk(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    assert_holds(cache, ["a", "b"], [False, False])
    cache.put(["a", "b", ""], vectors_of(["a", "b", ""]))
    assert_holds(cache, ["b", "x", "a", "b", ""], [True, False, True, True, True])
    assert shards(tmp_path) == []
    cache.flush()
    assert_holds(cache, ["b", "x", "a", "b", ""], [True, False, True, True, True])
    assert_holds(open_cache(tmp_path), ["b", "x", "a", "b", ""], [True, False, True, True, True])
    assert_holds(open_cache(tmp_path), [], [])


@settings(max_examples=30)
@given(st.lists(st.lists(st.text(max_size=3), max_size=6), max_size=14), st.lists(st.text(max_size=3), max_size=9))
def test_any_order_of_puts_and_flushes(
    tmp_path_factory: pytest.TempPathFactory, puts: list[list[str]], asked: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    known: set[str] = set()
    with open_cache(folder) as cache:
        for number, texts in enumerate(puts):
            cache.put(texts, vectors_of(texts))
            known |= set(texts)
            if number % 3:
                cache.flush()
            assert_holds(cache, asked, [text in known for text in asked])
    assert_holds(open_cache(folder), asked, [text in known for text in asked])


def test_another_model_dtype_or_text_finds_nothing(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    assert_holds(open_cache(tmp_path, fingerprint=MODEL[:-1] + "c"), ["a"], [False])  # the same folder, another key
    assert_holds(open_cache(tmp_path, fingerprint="cd" * 32), ["a"], [False])
    assert_holds(open_cache(tmp_path, dtype="bfloat16"), ["a"], [False])
    assert_holds(open_cache(tmp_path), ["a ", "A", "\ud800"], [False] * 3)
    assert_holds(open_cache(tmp_path), ["a"], [True])


def test_a_lone_surrogate_is_a_text_too(tmp_path: Path) -> None:
    fill(tmp_path, ["\ud800"])
    assert_holds(open_cache(tmp_path), ["\ud800", "\ufffd"], [True, False])


def test_keys_that_end_in_zero_bytes(tmp_path: Path) -> None:
    texts = [str(i) for i in range(2000)]  # about eight of their digests end in a zero byte
    with open_cache(tmp_path) as cache:
        cache.put(texts, vectors_of(texts))
        assert cache.get(texts)[1].all()
    assert any(key[-1] == 0 for key in load_file(shards(tmp_path)[0])["keys"])
    assert_holds(open_cache(tmp_path), texts, [True] * len(texts))


def test_two_caches_in_one_folder_at_once(tmp_path: Path) -> None:
    one, two = open_cache(tmp_path), open_cache(tmp_path)
    one.put(["a", "b"], vectors_of(["a", "b"]))
    two.put(["b", "c"], vectors_of(["b", "c"]))
    one.flush()
    two.flush()
    assert_holds(open_cache(tmp_path), ["a", "b", "c"], [True] * 3)
    assert_holds(one, ["a", "b", "c"], [True, True, False])


def test_two_processes_that_write_the_same(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from gpu_select.encoder.cache import EmbeddingCache\n"
        "with EmbeddingCache(sys.argv[1], 'ab' * 32, 'float32', 5) as cache:\n"
        "    for i in range(30):\n"
        "        cache.put([str(i)], np.eye(5, dtype=np.float32)[:1]); cache.flush()\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [process.wait() for process in started] == [0, 0]
    assert open_cache(tmp_path).get([str(i) for i in range(30)])[1].all()
    assert len(list(tmp_path.rglob("*.*"))) == 30  # no temporary file is left


def test_many_vectors_are_written_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_FLUSH_ROWS", 3)
    cache = open_cache(tmp_path)
    cache.put(["a", "b"], vectors_of(["a", "b"]))
    assert len(shards(tmp_path)) == 0
    cache.put(["c"], vectors_of(["c"]))
    assert len(shards(tmp_path)) == 1


def test_what_was_put_is_kept_when_the_block_fails(tmp_path: Path) -> None:
    def interrupted() -> None:
        with open_cache(tmp_path) as cache:
            cache.put(["a"], vectors_of(["a"]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert_holds(open_cache(tmp_path), ["a"], [True])


def test_shards_are_plain_safetensors(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"])
    stored = load_file(shards(tmp_path)[0])
    assert {name: (array.dtype, array.shape) for name, array in stored.items()} == {
        "keys": (np.uint8, (2, 32)),
        "vectors": (np.float32, (2, 5)),
    }


def overwrite(path: Path, **changes: NDArray[np.generic] | None) -> None:
    tensors = load_file(path) | changes
    save_file({name: array for name, array in tensors.items() if array is not None}, path)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "truncated": cut_in_half,
    "empty": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "no safetensors": lambda path: path.write_bytes(b"\xff" * 200),
    "huge header": lambda path: path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:]),
    "header of another kind": lambda path: path.write_bytes((2).to_bytes(8, "little") + b"[]" + b"\0" * 99),
    "other width": lambda path: overwrite(path, vectors=np.eye(2, 7, dtype=np.float32)),
    "other dtype": lambda path: overwrite(path, vectors=np.eye(2, 5, dtype=np.float64)),
    "fewer keys": lambda path: overwrite(path, keys=np.zeros((1, 32), dtype=np.uint8)),
    "no keys": lambda path: overwrite(path, keys=None),
    "huge count": lambda path: path.write_bytes(path.read_bytes().replace(b"[2,32]", b"[9,32]")),
    "fraction": lambda path: path.write_bytes(path.read_bytes().replace(b"[2,32]", b"[2.,32")),
    "one more": lambda path: overwrite(path, other=np.zeros(3, dtype=np.uint8)),
    "not finite": lambda path: overwrite(path, vectors=np.full((2, 5), np.nan, dtype=np.float32)),
    "not of unit length": lambda path: overwrite(path, vectors=np.ones((2, 5), dtype=np.float32)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_shard_is_reported_once_and_replaced(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, ["a", "b"])
    broken = shards(tmp_path)[0]
    fill(tmp_path, ["c"])
    DAMAGE[damage](broken)
    with caplog.at_level(logging.WARNING, logger="gpu_select"):
        cache = open_cache(tmp_path)
        for _ in range(2):
            assert_holds(cache, ["a", "b", "c"], [False, False, True])
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert message.startswith(f"{broken}: damaged cache file, its vectors are computed anew (")
    assert "\n" not in message
    cache.put(["b"], vectors_of(["b"]))
    cache.flush()
    assert_holds(cache, ["a", "b", "c"], [False, True, True])


@pytest.mark.parametrize("damage", ["truncated", "not finite", "other width"])
def test_shard_that_is_damaged_while_the_cache_is_open(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, ["a", "b"])
    cache = open_cache(tmp_path)
    DAMAGE[damage](shards(tmp_path)[0])
    assert_holds(cache, ["a", "b"], [False, False])
    assert "damaged cache file" in caplog.text


def test_shard_that_is_deleted_while_the_cache_is_open(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, ["a", "b"])
    cache = open_cache(tmp_path)
    shards(tmp_path)[0].unlink()
    for _ in range(2):
        assert_holds(cache, ["a", "b"], [False, False])
    assert len(caplog.records) == 1
    cache.put(["a"], vectors_of(["a"]))
    assert_holds(cache, ["a", "b"], [True, False])


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    note = shards(tmp_path)[0].with_name("README.txt")
    note.write_text("hello")
    fill(tmp_path, ["b"])
    assert note.read_text() == "hello"
    assert_holds(open_cache(tmp_path), ["a", "b"], [True, True])


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write to the cache folder .*/file/embeddings/abab\S+-float32: \w+"):
        open_cache(tmp_path / "file")


def test_folder_that_vanishes_before_the_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = open_cache(tmp_path / "cache")
    cache.put(["a"], vectors_of(["a"]))
    monkeypatch.setattr(cache, "_folder", tmp_path / "file" / "below")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        cache.flush()
