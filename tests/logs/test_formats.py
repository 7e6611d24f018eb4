import pytest

from gpu_select.errors import ConfigError, InputError, OutputError
from gpu_select.logs import open_log, open_writer
from gpu_select.logs.formats import log_format


@pytest.mark.parametrize(
    ("path", "given", "expected"),
    [
        ("a/log.jsonl", None, "jsonl"),
        ("log.ndjson.gz", None, "jsonl"),
        ("LOG.CSV", None, "csv"),
        ("log.tsv.ZST", None, "tsv"),
        ("log.2024.txt", None, "txt"),
        ("log.parquet", None, "parquet"),
        ("-", None, "jsonl"),
        ("-", "csv", "csv"),
        ("log.bin", "txt", "txt"),
        ("log.csv", "tsv", "tsv"),
    ],
)
def test_the_format_is_the_one_given_or_that_of_the_name(path, given, expected):
    assert log_format(path, given, InputError) == expected


@pytest.mark.parametrize(("start", "error"), [(open_log, InputError), (open_writer, OutputError)])
@pytest.mark.parametrize("name", ["log", "log.json", "log.gz", ".jsonl", "log.xlsx.zst"])
def test_an_unknown_ending_lists_the_known_ones(tmp_path, start, error, name):
    known = r"\.jsonl, \.ndjson, \.csv, \.tsv, \.txt, \.parquet \(plain, \.gz or \.zst\)"
    with pytest.raises(error, match=rf"{name}: unknown kind of log; expected a name that ends in {known}$"):
        start(str(tmp_path / name))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("start", "error"), [(open_log, InputError), (open_writer, OutputError)])
def test_parquet_is_not_compressed_again(tmp_path, start, error):
    with pytest.raises(error, match=r"log\.parquet\.gz: Parquet is compressed inside; expected a name without \.gz$"):
        start(str(tmp_path / "log.parquet.gz"))


@pytest.mark.parametrize("start", [open_log, open_writer])
def test_an_unknown_format_lists_the_known_ones(start):
    with pytest.raises(ConfigError, match=r"^format: expected one of jsonl, csv, tsv, txt, parquet, got 'xlsx'$"):
        start("-", format="xlsx")
