from __future__ import annotations

import json

import pytest

from gpu_select.throughput import roof


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(roof, "_MIN_S", 0.002)
    monkeypatch.setattr(roof, "_SIZES", {"cpu": ((64, 64, 64),)})
    monkeypatch.setattr(roof, "_COPY_BYTES", {"cpu": 2**20})


@pytest.fixture
def bench(cli, tiny_encoder_path, tmp_path):
    """Call with more options: `gpu-select bench` with the tiny encoder."""

    def run(*options, encoder=True):
        named = ("--embedding-model", tiny_encoder_path) if encoder else ()
        return cli("bench", *named, "--device", "cpu", "--cache-dir", tmp_path / "cache", *options)

    return run


@pytest.mark.parametrize("selector", ["knn", "kmeans", "svm", "mlp"])
def test_synthetic_queries(bench, tmp_path, selector):
    options = ("--lengths", "8,16", "--queries", 50, "--selector", selector, "--rows", 70, "--repeats", 2)
    done = bench(*options, "--json", tmp_path / "out.json")
    assert done.status == 0, done.err
    assert "encoder   tiny-bert, with its own weights and tokenizer\n" in done.out
    assert f"selector  {selector}, made up, as from 70 training queries\n" in done.out
    assert "TFLOP/s in float32, measured in this run (64 x 64 x 64)" in done.out
    assert "RANDOM" not in done.out
    document = json.loads((tmp_path / "out.json").read_text())
    assert list(document["results"]) == ["8 tokens", "16 tokens"]
    for mean, result in zip((8, 16), document["results"].values(), strict=True):
        assert result["mean_tokens"] == pytest.approx(mean, rel=0.1)
        assert (result["queries"], result["repeats"], result["errors"]) == (50, 2, 0)
        assert result["utilisation"] == pytest.approx(
            result["tokens_per_s"] * result["flops_per_token"] / document["roof"]["flops_per_s"]
        )
    assert document["encoder_is_random"] is False


def test_the_encoders_options_reach_it(bench, monkeypatch):
    from gpu_select.encoder import Encoder

    compiled = []
    monkeypatch.setattr(Encoder, "compile_layers", lambda self: compiled.append(self))
    done = bench("--lengths", 8, "--queries", 5, "--rows", 9, "--repeats", 1, "--deterministic", "--compile")
    assert done.status == 0, done.err
    assert "in float32-deterministic, compiled, 0.000 GFLOP a token" in done.out
    assert len(compiled) == 1


def test_random_weights_are_said_to_be_random(bench, random_model_path, monkeypatch):
    monkeypatch.setattr("gpu_select.throughput.encoders.is_at_hand", lambda name: False)
    monkeypatch.setattr(
        "gpu_select.throughput.encoders.ensure_random_encoder", lambda folder, shape, device: random_model_path
    )
    done = bench("--lengths", 8, "--queries", 20, "--rows", 20, "--repeats", 1, encoder=False)
    assert done.status == 0, done.err
    assert "encoder   RANDOM WEIGHTS of the shape of qwen3-small; the tokenizer is a BPE of 700 entries" in done.out


@pytest.fixture(scope="module")
def random_model_path(tmp_path_factory):
    from gpu_select.throughput import Shape, ensure_random_encoder

    shape = Shape("tiny", 64, 96, 3, 4, 2, 16, 700, max_position_embeddings=256)
    return ensure_random_encoder(tmp_path_factory.mktemp("random"), shape, corpus_bytes=100_000)


def test_a_log_and_trained_selectors(bench, models_dir, data_dir, write_lines, tmp_path):
    rows = [json.loads(line) for line in (data_dir / "held_out.jsonl").read_text().splitlines()]
    log = write_lines(tmp_path / "mine.jsonl", [*rows[:30], {"query": ""}])
    done = bench("--input", log, "--models-dir", models_dir, "--selector", "svm", "--json", tmp_path / "out.json")
    assert done.status == 0, done.err
    assert f"selector  svm of {models_dir / 'svm_model.json'}" in done.out
    result = json.loads((tmp_path / "out.json").read_text())["results"]["mine.jsonl"]
    assert (result["queries"], result["errors"], result["repeats"]) == (31, 1, 3)


def test_the_first_rows_of_a_log_are_enough_if_asked_for(bench, data_dir, tmp_path):
    done = bench("--input", data_dir / "train.jsonl", "--queries", 12, "--rows", 9, "--json", tmp_path / "out.json")
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "out.json").read_text())["results"]["train.jsonl"]["queries"] == 12


def test_the_folders_first_selector_and_its_encoder_are_the_default(bench, models_dir, tiny_encoder_path, monkeypatch):
    monkeypatch.chdir(tiny_encoder_path.parent)  # the files name the encoder by its folder
    done = bench("--models-dir", models_dir, "--lengths", 8, "--queries", 5, "--repeats", 1, encoder=False)
    assert done.status == 0, done.err
    assert "encoder   tiny-bert" in done.out
    assert f"selector  knn of {models_dir / 'knn_model.json'}" in done.out


def test_without_a_number_there_are_as_many_queries_as_a_minute_takes(bench, monkeypatch):
    monkeypatch.setattr("gpu_select.commands.bench._SECONDS", 1e-9)
    done = bench("--lengths", 8, "--rows", 9, "--repeats", 1)
    assert done.status == 0, done.err
    assert "routing 64 queries of 8 tokens 2 times" in done.err


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        (("--input", "x.jsonl", "--lengths", "8"), 2, "--lengths is for synthetic queries: give it without --input"),
        (("--models-dir", "x", "--rows", "8"), 2, "--rows is for a made-up selector: give it without --models-dir"),
        (
            ("--lengths", "8,,9", "--rows", "0", "--repeats", "0"),
            1,
            "error: rows: expected an integer >= 1, got 0; repeats: expected an integer >= 1, got 0; "
            "lengths: expected whole numbers of tokens, separated by commas, got '8,,9'",
        ),
        (("--lengths", "8,2"), 1, "error: lengths: expected 4 to 32 tokens, which is what the encoder takes, got 2"),
        (("--input", "-"), 1, "error: input: expected a file, as it is read more than once, got '-'"),
        (("--input", "nowhere.jsonl"), 1, "error: cannot read nowhere.jsonl: No such file"),
        (("--models-dir", "nowhere"), 1, "error: pretrained model not found: nowhere holds none of"),
        (("--selector", "tree"), 2, "'tree' is not one of 'knn', 'kmeans', 'svm'"),
    ],
)
def test_mistakes_end_in_one_line(bench, options, status, text):
    done = bench(*options)
    assert done.status == status
    assert text in " ".join(done.err.split())
    assert "Traceback" not in done.err
