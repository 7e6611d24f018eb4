from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_select import jsonio
from gpu_select.errors import FileFormatError, GpuSelectError, InputError
from gpu_select.report import fields
from gpu_select.report.replay import read_replay
from gpu_select.report.tuning import read_tuning
from gpu_select.report.validation import read_validation

MISSING = object()


def put(document, place, value):
    """Replaces or, for MISSING, removes what is at a place."""
    *way, last = place
    for step in way:
        document = document[step]
    if value is MISSING:
        del document[last]
    else:
        document[last] = value


def test_a_validation_is_read_as_it_was_written(validation, save):
    read = read_validation(save(validation))
    assert read.queries == 2409
    assert [s.name for s in read.of_kind("selector")] == ["svm", "mlp", "knn", "kmeans"]
    assert read.best_single.model == "qwen2.5-7b"
    assert read.strategies[0].mean_quality == validation["strategies"][0]["mean_quality"]
    assert read.domains[3].chosen["knn"] == validation["domains"][3]["chosen"]["knn"]
    assert (read.in_training, len(read.examples)) == (12, 2)
    assert len(read.curves) == 8
    assert [p.weight for p in read.curves[0].points] == sorted(p["weight"] for p in validation["curves"][0]["points"])


def test_a_comparison_is_found_whichever_way_round_it_stands(validation, save):
    read = read_validation(save(validation))
    there, back = read.compare("oracle", "random"), read.compare("random", "oracle")
    assert there.difference == pytest.approx(0.3605)
    assert back.difference == -there.difference
    assert back.ci95 == (-there.ci95[1], -there.ci95[0])
    assert back.significant
    assert read.compare("knn", "nobody") is None


def test_a_tuning_is_read_as_it_was_written(tuning, save):
    read = read_tuning(save(tuning))
    assert read.algorithms == ("knn", "kmeans", "svm", "mlp")
    assert len(read.trials) == len(tuning["trials"])
    assert read.of("svm")[0].quality == max(t["quality"] for t in tuning["trials"] if t["algorithm"] == "svm")


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        (("format",), "x", "format: expected 'gpu_select.validation', the JSON that gpu-select validate --json writes"),
        (("format",), MISSING, "format: expected a text, got nothing: the field is missing"),
        (("version",), 2, "version: expected 1, got 2; write it again with gpu-select validate --json"),
        (("version",), "1", "version: expected an integer of at least 0, got '1'"),
        (("queries",), -1, "queries: expected an integer of at least 0, got -1"),
        (("queries",), 2.5, "queries: expected an integer of at least 0, got 2.5"),
        (("queries",), True, "queries: expected an integer of at least 0, got True"),
        (("encoder",), "", "encoder: expected a text that is not empty, got ''"),
        (("models", 1), 7, "models[1]: expected a text that is not empty, got 7"),
        (("models", 1), "qwen2.5-7b", "models[1]: expected no text twice, got 'qwen2.5-7b'"),
        (("strategies",), [], "strategies: expected at least one strategy, got []"),
        (("strategies",), {}, "strategies: expected a list of objects, got {}"),
        (("strategies", 2), "knn", "strategies[2]: expected an object, got 'knn'"),
        (("strategies", 2, "name"), "knn", "strategies[2].name: expected no strategy twice, got 'knn'"),
        (("strategies", 2, "kind"), "best", "strategies[2].kind: expected one of oracle, selector, single, baseline"),
        (("strategies", 2, "kind"), ["oracle"], "got ['oracle']"),
        (("strategies", 2, "mean_quality"), "0.4", "strategies[2].mean_quality: expected a finite number, got '0.4'"),
        (("strategies", 2, "mean_quality"), None, "strategies[2].mean_quality: expected a finite number, got None"),
        (("strategies", 2, "mean_quality"), 1e13, "strategies[2].mean_quality: expected a number below 1e+12, got 1"),
        (("strategies", 2, "mean_quality"), MISSING, "expected a finite number, got nothing: the field is missing"),
        (("strategies", 2, "best_rate"), 1.2, "strategies[2].best_rate: expected a number in [0, 1], got 1.2"),
        (("strategies", 2, "mean_cost_usd"), -1, "mean_cost_usd: expected a number of at least 0, got -1"),
        (("strategies", 2, "ci95"), [0.5, 0.4], "ci95: expected two numbers, the lower first, got [0.5, 0.4]"),
        (("strategies", 2, "ci95"), [0.5], "ci95: expected two numbers, the lower first, got [0.5]"),
        (("strategies", 2, "ci95"), ["a", 0.5], "strategies[2].ci95[0]: expected a finite number, got 'a'"),
        (("strategies", 2, "shares"), [], "strategies[2].shares: expected an object, got []"),
        (("strategies", 2, "shares", "a"), "b", "strategies[2].shares.a: expected a finite number, got 'b'"),
        (("comparisons", 0, "b"), "nobody", "comparisons[0].b: expected the name of a strategy, got 'nobody'"),
        (("domains", 1, "chosen", "knn", "m"), 0.5, "domains[1].chosen.knn.m: expected an integer of at least 0"),
        (("domains", 1, "quality", "nobody"), 0.5, "domains[1].quality.nobody: expected the name of a strategy"),
        (("curves", 0, "against"), "time", "curves[0].against: expected one of cost, latency, got 'time'"),
        (("curves", 0, "points", 3, "weight"), None, "curves[0].points[3].weight: expected a finite number, got None"),
        (("confidence", 0, "bins", 3, "margin"), [1, 0], "confidence[0].bins[3].margin: expected two numbers"),
        (("left_out",), MISSING, "left_out: expected an object, got nothing: the field is missing"),
        (("left_out", "examples"), "x", "left_out.examples: expected a list of texts, got 'x'"),
    ],
)
def test_a_bad_field_of_a_validation_is_named(validation, save, place, value, text):
    put(validation, place, value)
    path = save(validation)
    with pytest.raises(FileFormatError) as caught:
        read_validation(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert text in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        (("trials",), [], "trials: expected at least one trial, got []"),
        (("trials", 3, "chosen"), 1, "trials[3].chosen: expected true or false, got 1"),
        (("trials", 3, "folds", 0), None, "trials[3].folds[0]: expected a finite number, got None"),
        (("trials", 3, "settings", "gamma"), {}, "settings.gamma: expected a text, a number, true, false or null"),
        (("trials", 3, "settings", "gamma"), [1, "a"], "settings.gamma[1]: expected a finite number, got 'a'"),
        (("trials", 3, "gain_ci95"), None, "trials[3].gain_ci95: expected two numbers, the lower first, got None"),
        (("quality_weight",), 2, "quality_weight: expected a number in [0, 1], got 2"),
        (("baselines", "best_single", "model"), None, "baselines.best_single.model: expected a text"),
    ],
)
def test_a_bad_field_of_a_tuning_is_named(tuning, save, place, value, text):
    put(tuning, place, value)
    path = save(tuning)
    with pytest.raises(FileFormatError) as caught:
        read_tuning(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert text in str(caught.value)


def test_the_files_of_both_kinds_are_told_apart(validation, tuning, save):
    with pytest.raises(FileFormatError, match=r"got 'gpu_select.tuning'; give this file as --tuning$"):
        read_validation(save(tuning))
    with pytest.raises(FileFormatError, match=r"got 'gpu_select.validation'; give this file as --validation$"):
        read_tuning(save(validation))


def test_what_may_be_unknown_may_be_null(validation, save):
    strategy = validation["strategies"][2]
    strategy.update(mean_latency_s=None, mean_cost_usd=None, gap_share=None)
    validation["comparisons"][0].update(difference=None, ci95=None)
    validation["domains"][0]["quality"]["knn"] = None
    validation["curves"][0]["points"][0].update(quality=None, cost_usd=None, latency_s=None)
    validation["confidence"][0]["bins"][0].update(quality=None, best_single_quality=None, ci95=None, margin=None)
    validation["confidence"][0]["bins"][1].update(ci95=[None, None], margin=[None, None])
    read = read_validation(save(validation))
    assert read.strategies[2].mean_cost_usd is None
    assert read.confidence[0].bins[1].margin == (None, None)


def test_examples_may_be_alike_as_they_are_cut(validation, save):
    validation["left_out"]["examples"] = ["What is", "What is"]
    assert read_validation(save(validation)).examples == ("What is", "What is")


def test_unknown_fields_are_for_later_versions(validation, save):
    validation["strategies"][0]["novelty"] = {"deep": [1]}
    assert read_validation(save(validation)).strategies[0].name == "oracle"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "expected the JSON that gpu-select validate --json writes, got something else: "),
        (b"\xff\xfe", "got something else: "),
        (b"[1, 2", "line 1 column 6"),
        (b'{"format": NaN}', "NaN is not a JSON number"),
        (b"[" * 5000 + b"]" * 5000, "nested deeper than 200 levels"),
        (b"[]", "document: expected an object, got []"),
        (b"strategy  quality\nknn  0.4\n", "got something else: Expecting value: line 1 column 1"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, data, text):
    path = tmp_path / "broken.json"
    path.write_bytes(data)
    with pytest.raises(GpuSelectError) as caught:
        read_validation(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert text in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_cut_off_file_is_refused(validation, tmp_path):
    path = tmp_path / "cut.json"
    path.write_bytes(json.dumps(validation).encode()[:-1000])
    with pytest.raises(InputError, match=r"cut\.json: expected the JSON that gpu-select validate --json writes, got"):
        read_validation(str(path))


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    path = tmp_path / "huge.json"
    with path.open("wb") as stream:
        stream.truncate(1 << 30)  # a hole: takes no room on the disk
    monkeypatch.setattr(jsonio, "loads", lambda data: pytest.fail("parsed"))
    with pytest.raises(InputError, match=r"huge\.json: expected the JSON that .* writes, of at most 32 MiB, got more"):
        read_validation(str(path))


def test_a_missing_file_is_one_line():
    with pytest.raises(InputError, match=r"cannot read nowhere\.json: No such file"):
        read_validation("nowhere.json")


def test_a_hostile_field_name_keeps_the_error_short(validation, save):
    put(validation, ("strategies", 0, "shares", "x\n" * 10_000), "y")
    with pytest.raises(FileFormatError) as caught:
        read_validation(save(validation))
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def places(value, way=()):
    """All places within a document, lists by their first two."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*way, key)
            yield from places(item, (*way, key))
    elif isinstance(value, list):
        for i, item in enumerate(value[:2]):
            yield (*way, i)
            yield from places(item, (*way, i))


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_in_a_field_a_page_or_one_line_comes_of_it(
    validation, tuning, replay, tmp_path, data, monkeypatch
):
    from gpu_select.report import page

    monkeypatch.setattr(page, "_plotly_js", lambda: "")
    kind = data.draw(st.sampled_from(["validation", "tuning", "replay"]))
    document = copy.deepcopy({"validation": validation, "tuning": tuning, "replay": replay}[kind])
    put(document, data.draw(st.sampled_from(list(places(document)))), data.draw(anything | st.just(MISSING)))
    path = Path(tmp_path / "fuzzed.json")
    path.write_bytes(jsonio.dumps(document))
    refused = None
    try:
        if kind == "validation":
            page.render([read_validation(str(path))], [])
        elif kind == "tuning":
            page.render([], [read_tuning(str(path))])
        else:
            page.render([], [], [read_replay(str(path))])
    except GpuSelectError as error:
        refused = str(error)
    if refused is not None:
        assert len(refused.splitlines()) == 1
        assert refused.startswith(f"{path}: ")


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_refused_in_one_line(tmp_path, data):
    path = tmp_path / "bytes.json"
    path.write_bytes(data)
    with pytest.raises(GpuSelectError) as caught:
        fields.read_document(str(path), "gpu_select.tuning")
    assert len(str(caught.value).splitlines()) == 1
