"""config.yaml: the documented example, and every problem at once with its path."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.config import (
    AlgorithmConfig,
    DomainCondition,
    Junction,
    KeywordCondition,
    KeywordRule,
    ModelRef,
    read_config,
)
from gpu_select.errors import ConfigError, InputError
from gpu_select.yamlio import dump_yaml, load_yaml

EXAMPLE = Path(__file__).parent.parent.parent / "configs" / "config.yaml"
VARIABLES = {"MISTRAL_API_KEY": "sk-secret", "CODE_HOST": "code.example", "CODE_TOKEN": "tok-secret"}

MATH = {"type": "domain", "name": "math"}
DECISION = {"name": "a", "rules": {"operator": "AND", "conditions": [MATH]}, "modelRefs": [{"model": "m"}]}


@pytest.fixture
def read(tmp_path):
    """Call with YAML, or a value to be written as YAML: what reading a file of it gives."""

    def read_file(content, **options):
        path = tmp_path / "config.yaml"
        path.write_text(content if isinstance(content, str) else dump_yaml(content))
        return read_config(path, **options)

    return read_file


@pytest.fixture
def example(monkeypatch):
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    return read_config(EXAMPLE, serving=True)


def test_the_documented_example(example):
    assert (example.models_path, example.encoder) == ("models/", "qwen3")
    assert [decision.priority for decision in example.decisions] == [200, 100, 100, 100, 50]
    urgent, math, code, engineering, general = example.decisions
    rule = KeywordRule("urgent_request", "OR", ("urgent", "immediately", "asap"))
    sensitive = Junction("OR", (DomainCondition("law"), DomainCondition("health")))
    assert urgent.rules == Junction("AND", (KeywordCondition(rule), Junction("NOT", (sensitive,))))
    assert urgent.algorithm is None
    assert urgent.models == ("llama-3.2-1b", "llama-3.2-3b")
    assert math.algorithm == AlgorithmConfig("knn", k=5)
    assert math.model_refs[0] == ModelRef("llama-3.2-1b", use_reasoning=False)
    assert code.algorithm == AlgorithmConfig("svm", kernel="rbf", gamma=1.0)
    assert engineering.algorithm == AlgorithmConfig("mlp")
    assert general.algorithm == AlgorithmConfig("kmeans", num_clusters=8)
    assert general.description == "General knowledge"
    assert (example.default_decision, example.default_model) == ("general_decision", None)
    assert example.models == ("llama-3.2-1b", "llama-3.2-3b", "mistral-7b", "codellama-7b")
    mistral, code_endpoint = example.endpoints[2:]
    assert mistral.api_key == "sk-secret"
    assert code_endpoint.endpoint == "https://code.example/v1"
    assert code_endpoint.headers == {"Authorization": "Bearer tok-secret"}
    assert "secret" not in repr(example)


def test_the_example_in_the_readme(read):
    (text,) = re.findall(r"```yaml\n(.*?)```", (EXAMPLE.parent.parent / "README.md").read_text("utf-8"), re.DOTALL)
    config = read(text)
    assert [(decision.name, decision.models) for decision in config.decisions] == [
        ("law", ("mistral-7b", "llama-3.2-3b"))
    ]
    assert (config.encoder, config.default_model) == ("minilm", "mistral-7b")


def test_missing_variables_are_named_with_their_paths(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError) as caught:
        read_config(EXAMPLE)
    assert str(caught.value) == (
        f"{EXAMPLE}: endpoints[2].api_key: the environment variable MISTRAL_API_KEY is not set; "
        "endpoints[3].endpoint: the environment variable CODE_HOST is not set; "
        "endpoints[3].headers.Authorization: the environment variable CODE_TOKEN is not set"
    )


def test_the_highest_priority_comes_first_then_the_order(read):
    ranks = {"a": 5, "b": None, "c": 5, "d": -1, "e": 50}
    config = read({"decisions": [DECISION | {"name": name, "priority": rank} for name, rank in ranks.items()]})
    assert [decision.name for decision in config.by_preference] == ["e", "a", "c", "b", "d"]


def test_the_default_is_a_decision_or_a_model(read):
    config = read({"decisions": [DECISION], "default": "a"})
    assert (config.default_decision, config.default_model, config.models) == ("a", None, ("m",))
    config = read({"decisions": [DECISION], "default": "b"})
    assert (config.default_decision, config.default_model, config.models) == (None, "b", ("m", "b"))
    assert read({"decisions": [DECISION]}).default_model is None


@pytest.mark.parametrize("off", [{"enabled": False}, {"ml": {"enabled": False}}])
def test_without_selectors_models_are_taken_in_order(read, off):
    (decision,) = read({"model_selection": off, "decisions": [DECISION | {"algorithm": {"type": "svm"}}]}).decisions
    assert decision.algorithm is None


def test_a_condition_stands_alone(read):
    assert read({"decisions": [DECISION | {"rules": MATH}]}).decisions[0].rules == DomainCondition("math")


def changed(place, value):
    """The documented example with one value replaced; None takes it out."""
    document = load_yaml(EXAMPLE)
    *path, last = place
    inner = document
    for key in path:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return document


NAMES = "biology, business, chemistry, computer science, economics, engineering, health, history, law, math, other"
SERVED = "a model that an endpoint serves (codellama-7b, llama-3.2-1b, llama-3.2-3b, mistral-7b)"


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (["decision"], [], "decision: unknown key; expected one of model_selection, embedding_models, strategy, key"),
        (["decisions"], None, "decisions: expected a list of 1 to 1000 decisions, got nothing"),
        (["decisions"], {}, "decisions: expected a list of 1 to 1000 decisions, got a mapping"),
        (["strategy"], "confidence", "strategy: expected priority, got 'confidence'"),
        (["model_selection", "ml", "model_path"], "x", "model_selection.ml.model_path: unknown key; expected one of "),
        (
            ["model_selection", "ml", "models_path"],
            None,
            "model_selection.ml.models_path: expected the folder of the selector files, got nothing",
        ),
        (["model_selection", "ml", "enabled"], "yes", "model_selection.ml.enabled: expected true or false, got 'yes'"),
        (["embedding_models", "gemma_model_path"], "x", "embedding_models.gemma_model_path: unknown key; expected one"),
        (["embedding_models", "qwen3_model_path"], 3, "embedding_models.qwen3_model_path: expected a text of one line"),
        (["keyword_rules", 0, "operator"], "NOT", "keyword_rules[0].operator: expected one of AND, OR, NOR, got 'NOT'"),
        (["keyword_rules", 0, "keywords"], [], "keyword_rules[0].keywords: expected a list of 1 to 10000 keywords, go"),
        (["keyword_rules", 0, "keywords", 1], "", "keyword_rules[0].keywords[1]: expected a text of one line that is"),
        (["keyword_rules", 0, "fuzzy"], 1, "keyword_rules[0].fuzzy: unknown key; expected one of name, operator, keyw"),
        (["decisions", 1, "name"], "code_decision", "decisions: expected each name once, got 'code_decision' 2 times"),
        (["decisions", 1, "name"], None, "decisions[1].name: expected a text of one line that is not empty, got None"),
        (["decisions", 1, "priority"], 1.5, "decisions[1].priority: expected an integer from -1000000000 to 10000000"),
        (["decisions", 1, "description"], 5, "decisions[1].description: expected a text, got 5"),
        (["decisions", 1, "prioritty"], 5, "decisions[1].prioritty: unknown key; expected one of rules, name, modelRe"),
        (["decisions", 1, "rules"], None, "decisions[1].rules: expected a mapping with operator and conditions, got n"),
        (["decisions", 1, "rules"], "math", "decisions[1].rules: expected a mapping, got a text"),
        (["decisions", 1, "rules", "operator"], "XOR", "decisions[1].rules.operator: expected one of AND, OR, NOT, go"),
        (["decisions", 1, "rules", "operator"], "NOT", "decisions[1].rules.conditions: expected one condition under N"),
        (["decisions", 1, "rules", "conditions"], [], "decisions[1].rules.conditions: expected a list of 1 to 10000"),
        (
            ["decisions", 1, "rules", "conditions", 1, "name"],
            "computer_science",
            f"decisions[1].rules.conditions[1].name: expected one of {NAMES}, philosophy, physics, psychology, unknown",
        ),
        (
            ["decisions", 1, "rules", "conditions", 0, "type"],
            "embedding",
            "decisions[1].rules.conditions[0].type: expected one of domain, keyword, got 'embedding'",
        ),
        (
            ["decisions", 0, "rules", "conditions", 0, "name"],
            "urgent",
            "decisions[0].rules.conditions[0].name: expected one of urgent_request, as keyword_rules names them, got '",
        ),
        (
            ["keyword_rules"],
            None,
            "decisions[0].rules.conditions[0].name: expected the name of one of keyword_rules, of which there are none",
        ),
        (
            ["decisions", 0, "rules", "conditions", 0, "keywords"],
            ["x"],
            "decisions[0].rules.conditions[0].keywords: unknown key; expected one of type, name",
        ),
        (
            ["decisions", 0, "rules", "conditions", 1, "conditions", 0, "conditions", 1, "name"],
            "Law",
            "decisions[0].rules.conditions[1].conditions[0].conditions[1].name: expected one of biology",
        ),
        (["decisions", 1, "algorithm", "type"], "elo", "decisions[1].algorithm.type: expected one of knn, kmeans, svm"),
        (["decisions", 1, "algorithm", "k"], 5, "decisions[1].algorithm.k: unknown key; expected one of type, knn"),
        (["decisions", 1, "algorithm", "knn", "k"], 0, "decisions[1].algorithm.knn.k: expected an integer from 1 to 1"),
        (["decisions", 2, "algorithm", "knn"], {"k": 5}, "decisions[2].algorithm.knn: unknown key; expected one of ty"),
        (["decisions", 2, "algorithm", "svm", "kernel"], "poly", "decisions[2].algorithm.svm.kernel: expected one of "),
        (["decisions", 2, "algorithm", "svm", "gamma"], -1, "decisions[2].algorithm.svm.gamma: expected a number from"),
        (["decisions", 3, "algorithm", "mlp", "device"], "tpu", "decisions[3].algorithm.mlp.device: expected one of c"),
        (["decisions", 4, "algorithm", "kmeans", "k"], 5, "decisions[4].algorithm.kmeans.k: unknown key; expected one"),
        (["decisions", 1, "modelRefs"], [], "decisions[1].modelRefs: expected a list of 1 to 10000 models, got 0 of t"),
        (["decisions", 1, "modelRefs", 0], "gpt", "decisions[1].modelRefs[0]: expected a mapping, got a text"),
        (
            ["decisions", 1, "modelRefs", 2, "model"],
            "llama-3.2-1b",
            "decisions[1].modelRefs[2].model: expected each model once, got 'llama-3.2-1b' again",
        ),
        (["decisions", 1, "modelRefs", 0, "lora_name"], "x", "decisions[1].modelRefs[0].lora_name: unknown key; expec"),
        (["decisions", 1, "modelRefs", 0, "model"], "gpt", f"decisions[1].modelRefs[0].model: expected {SERVED}, got "),
        (["default"], "gpt", f"default: expected {SERVED} or the name of a decision, got 'gpt'"),
        (["endpoints", 0, "endpoint"], None, "endpoints[0].endpoint: expected the http:// or https:// address of 'lla"),
        (["endpoints", 0, "endpoint"], "localhost:1", "endpoints[0].endpoint: expected an http:// or https:// address"),
        (["endpoints", 3, "endpoint"], "${CODE_TOKEN}", "endpoints[3].endpoint: expected an http:// or https:// addre"),
        (["endpoints", 0, "name"], "mistral-7b", "endpoints: expected each name once, got 'mistral-7b' 2 times"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_path(read, example, tmp_path, place, value, problem):
    with pytest.raises(ConfigError) as caught:
        read(changed(place, value))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'config.yaml'}: {problem}")
    assert "\n" not in text
    assert "secret" not in text


def test_all_problems_come_at_once(read, example):
    document = changed(["default"], "gpt")
    document["decisions"][0]["rules"]["conditions"][0]["name"] = "x"
    document["decisions"][1]["algorithm"]["knn"]["k"] = "many"
    document["decisions"][2]["modelRefs"].append({"model": "nobody"})
    document["endpoints"][0]["max_tokens"] = 0
    document["oops"] = "${NOT_SET}"
    with pytest.raises(ConfigError) as caught:
        read(document)
    assert re.findall(r"(?:^.*?yaml: |; )([^ ]+?): ", str(caught.value)) == [
        "oops",
        "decisions[0].rules.conditions[0].name",
        "decisions[1].algorithm.knn.k",
        "endpoints[0].max_tokens",
        "decisions[2].modelRefs[3].model",
        "default",
    ]


def test_serving_needs_endpoints(read):
    assert read({"decisions": [DECISION]}).endpoints == ()
    with pytest.raises(ConfigError, match="endpoints: expected a list of 1 to 10000 models, got nothing"):
        read({"decisions": [DECISION]}, serving=True)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*absent\.yaml: No such file or directory"):
        read_config(tmp_path / "absent.yaml")


PIECES = st.sampled_from(
    [
        "a", "math", "AND", "NOT", "knn", "domain", "keyword", "${X}", "", 0, 1, -1, 0.5, True, None,
        [], {}, [MATH], {"operator": "NOT", "conditions": [MATH, MATH]}, {"type": "knn", "knn": {"k": 3}},
        [{"model": "m"}],
    ]
)  # fmt: skip


@settings(max_examples=60)
@given(data=st.data())
def test_any_damage_gives_a_config_or_a_one_line_error(tmp_path_factory, data):
    document = load_yaml(EXAMPLE)
    for _ in range(data.draw(st.integers(1, 3))):
        inner, depth = document, data.draw(st.integers(0, 5))
        while True:
            if not isinstance(inner, (dict, list)) or not inner:
                break
            key = data.draw(st.sampled_from(list(inner) if isinstance(inner, dict) else list(range(len(inner)))))
            if depth == 0 or not isinstance(inner[key], (dict, list)):
                inner[key] = copy.deepcopy(data.draw(PIECES))
                break
            inner, depth = inner[key], depth - 1
    path = tmp_path_factory.getbasetemp() / "any_config.yaml"
    path.write_text(dump_yaml(document))
    text = f"{path}: "
    try:
        config = read_config(path)
        assert all(decision.name and decision.models for decision in config.decisions)
    except ConfigError as error:
        text = str(error)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
