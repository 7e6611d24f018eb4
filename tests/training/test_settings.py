"""Settings: their defaults, what is refused, and the way to YAML and back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_select.errors import ConfigError, GpuSelectError, InputError
from gpu_select.training import (
    KMeansSettings,
    KNNSettings,
    MLPSettings,
    SVMSettings,
    TrainOptions,
    read_settings,
)
from gpu_select.yamlio import dump_yaml

NAN, INF = float("nan"), float("inf")


def test_the_documented_defaults():
    values = TrainOptions().as_mapping()
    assert list(values) == ["knn", "kmeans", "svm", "mlp", "quality_weight", "seed"]
    assert (values["quality_weight"], values["seed"]) == (0.9, 0)
    assert values["knn"]["k"] == 5
    assert values["kmeans"]["clusters"] == 8
    assert (values["svm"]["kernel"], values["svm"]["gamma"]) == ("rbf", 1.0)
    assert values["mlp"]["hidden_sizes"] == list(MLPSettings().hidden_sizes)
    for name in ("knn", "kmeans", "svm"):
        assert values[name]["domain_weight"] == 1.0


BAD = {
    "knn.k": [0, -3, 2.0, "5", None, True],
    "knn.domain_weight": [-0.1, 101, NAN, "1", False],
    "knn.gamma": [0, -1.0, NAN, INF, 2e6],
    "knn.ridge": [0.0, -1.0, NAN, INF],
    "kmeans.clusters": [0, 1.5, True],
    "kmeans.shrinkage": [0, -1, INF],
    "kmeans.gamma": [0.0],
    "kmeans.ridge": [1e-4],
    "kmeans.domain_weight": [-1e-9],
    "svm.kernel": ["poly", None, 3, ["rbf"], {}],
    "svm.gamma": [0.0, INF, NAN, "1"],
    "svm.c": [0, -1.0, INF],
    "svm.domain_weight": [-1, [1.0]],
    "mlp.hidden_sizes": [64, [0], [8] * 9, ["a"], [1.0], [70_000], None],
    "mlp.members": [0, 257, 1.0],
    "mlp.dropout": [1.0, -0.1, NAN],
    "mlp.learning_rate": [0.0, 11, NAN],
    "mlp.weight_decay": [-1.0, INF],
    "mlp.batch_size": [0, 1.5],
    "mlp.epochs": [0, 10**6],
    "quality_weight": [-0.01, 1.01, NAN, "0.9", True],
    "seed": [-1, 2**63, 1.0, True],
}


def nested(path: str, value: object) -> dict:
    group, _, name = path.rpartition(".")
    return {group: {name: value}} if group else {name: value}


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in BAD.items() for value in values])
def test_a_value_that_cannot_work_is_refused_by_its_path(path, value):
    with pytest.raises(ConfigError) as caught:
        TrainOptions().changed(nested(path, value))
    text = str(caught.value)
    assert text.startswith(f"{path}: expected ")
    assert ", got " in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("knn.k", 1),
        ("knn.domain_weight", 0),
        ("knn.domain_weight", 100),
        ("knn.ridge", 1e-3),
        ("svm.kernel", "linear"),
        ("svm.gamma", 1e-9),
        ("mlp.hidden_sizes", []),
        ("mlp.hidden_sizes", [65_536] * 8),
        ("mlp.dropout", 0),
        ("mlp.weight_decay", 0.0),
        ("quality_weight", 0),
        ("quality_weight", 1.0),
        ("seed", 2**63 - 1),
    ],
)
def test_a_value_at_the_edge_is_taken(path, value):
    found = TrainOptions().changed(nested(path, value)).as_mapping()
    group, _, name = path.rpartition(".")
    assert (found[group] if group else found)[name] == value


def test_every_problem_is_named_at_once():
    with pytest.raises(ConfigError) as caught:
        TrainOptions().changed(
            {
                "knn": {"k": 0, "neighbours": 3},
                "kmeans": [8],
                "svm": {"kernel": "poly", "gamma": -1},
                "tree": {},
                "quality_weight": 2,
                "seed": -1,
            },
            "tuned.yaml",
        )
    assert str(caught.value).split("; tuned.yaml: ") == [
        "tuned.yaml: knn.neighbours: no such setting; expected one of domain_weight, gamma, k, ridge",
        "knn.k: expected an integer >= 1, got 0",
        "kmeans: expected a mapping of settings, got [8]",
        "svm.kernel: expected rbf or linear, got 'poly'",
        "svm.gamma: expected a number > 0 and at most 1e+06, got -1",
        "tree: no such setting; expected one of kmeans, knn, mlp, quality_weight, seed, svm",
        "quality_weight: expected a number in [0, 1], got 2",
        "seed: expected an integer in [0, 2^63), got -1",
    ]


def test_options_made_by_hand_are_checked_all_at_once_too():
    with pytest.raises(ConfigError) as caught:
        TrainOptions(knn=KNNSettings(k=0), svm=SVMSettings(c=math.nan), mlp=MLPSettings(dropout=1.0), seed=-1)
    assert str(caught.value).split("; ") == [
        "knn.k: expected an integer >= 1, got 0",
        "svm.c: expected a number > 0 and at most 1e+06, got nan",
        "mlp.dropout: expected a number in [0, 1), got 1.0",
        "seed: expected an integer in [0, 2^63), got -1",
    ]


def test_what_is_not_named_stays():
    base = TrainOptions(knn=KNNSettings(k=7, ridge=3.0), kmeans=KMeansSettings(clusters=4), seed=2)
    found = base.changed({"knn": {"k": 9}})
    assert (found.knn, found.kmeans, found.seed) == (KNNSettings(k=9, ridge=3.0), KMeansSettings(clusters=4), 2)
    assert base.knn.k == 7
    assert base.changed({}) == base


number = st.floats(1e-3, 100)


@given(
    st.builds(
        TrainOptions,
        knn=st.builds(KNNSettings, st.integers(1, 10**6), number, number, number),
        kmeans=st.builds(KMeansSettings, st.integers(1, 10**6), number, number, number, number),
        svm=st.builds(SVMSettings, st.sampled_from(["rbf", "linear"]), number, number, number),
        mlp=st.builds(
            MLPSettings,
            st.lists(st.integers(1, 65_536), max_size=8).map(tuple),
            st.integers(1, 256),
            st.floats(0, 0.99),
            number.filter(lambda v: v <= 10),
            number,
            st.integers(1, 10**6),
            st.integers(1, 10**5),
        ),
        quality_weight=st.floats(0, 1),
        seed=st.integers(0, 2**63 - 1),
    )
)
def test_options_come_back_from_yaml_as_they_were(tmp_path_factory, options):
    path = tmp_path_factory.getbasetemp() / "settings.yaml"
    path.write_text(dump_yaml(options.as_mapping()), encoding="utf-8")
    assert read_settings(path) == options
    assert TrainOptions().changed(options.as_mapping()) == options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ": expected a mapping such as knn: {k: 25}, got None"),
        ("- knn", ": expected a mapping such as knn: {k: 25}, got ['knn']"),
        ("25", ": expected a mapping such as knn: {k: 25}, got 25"),
        ("knn: 25", ": knn: expected a mapping of settings, got 25"),
        ("knn:\n", ": knn: expected a mapping of settings, got None"),
        ("knn: {k: 25, k: 26}", "occurs twice"),
        ("knn: {k: !!python/object/apply:os.system [x]}", "is not supported"),
        ("knn: &a {k: 5}\nsvm: *a", "an alias"),
        ("knn: {1: 5}", "expected a text as key"),
        ("knn: {k: 1e3}", ": knn.k: expected an integer >= 1, got 1000.0"),
        ("knn: {k: yes}", ": knn.k: expected an integer >= 1, got 'yes'"),
        ("knn: {k: 0x10, gamma: .inf}", ": knn.gamma: expected a number > 0 and at most 1e+06, got inf"),
        ('"knn\\nerror: done": {}', ": no such setting; expected one of "),
        (f"{'k' * 900}: 1", "kkk...: no such setting"),
        (f"svm: {{kernel: {'r' * 5000}}}", "..."),
        (f"knn: {'[' * 500}", "nested deeper"),
        ("seed: 9" + "9" * 5000, "an integer of 5001 digits"),
        ("\x00", "not allowed in YAML"),
    ],
)
def test_a_file_that_makes_no_sense_is_one_line_with_its_name(tmp_path, text, expected):
    path = tmp_path / "tuned.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_settings(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@given(st.text(max_size=60))
def test_any_text_gives_options_or_one_line(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    text_of_error = ""
    try:
        read_settings(path)
    except GpuSelectError as error:
        text_of_error = str(error)
    assert "\n" not in text_of_error


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"^cannot read .*nonesuch\.yaml: No such file or directory$"):
        read_settings(tmp_path / "nonesuch.yaml")
