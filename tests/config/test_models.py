"""models.yaml: the documented example, both forms, and every problem at once with its path."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_select.config import ModelConfig, read_models
from gpu_select.errors import ConfigError, InputError
from gpu_select.yamlio import dump_yaml

EXAMPLE = Path(__file__).parent.parent.parent / "configs" / "models.yaml"


@pytest.fixture
def read(tmp_path):
    """Call with YAML, or a value to be written as YAML: what reading a file of it gives."""

    def read_file(content):
        path = tmp_path / "models.yaml"
        path.write_text(content if isinstance(content, str) else dump_yaml(content))
        return read_models(path)

    return read_file


def test_the_documented_example():
    llama, gpt, custom = read_models(EXAMPLE)
    assert llama == ModelConfig(
        "llama-3.2-3b",
        "http://localhost:8000/v1",
        concurrency=8,
        timeout_s=120.0,
        input_price_usd=0.0,
        output_price_usd=0.0,
        headers={},
    )
    assert gpt.api_key == "${OPENAI_API_KEY}"
    assert (gpt.max_tokens, gpt.temperature) == (1024, 0.0)
    assert (gpt.input_price_usd, gpt.output_price_usd) == (0.15, 0.6)
    assert custom.endpoint == "https://${CUSTOM_HOST}/v1"
    assert custom.headers == {"Authorization": "Bearer ${CUSTOM_TOKEN}"}
    assert (custom.input_price_usd, custom.output_price_usd, custom.api_key) == (None, None, None)


def test_a_mapping_by_name_says_the_same_as_a_list(read):
    settings = {"endpoint": "http://a/v1", "pricing": {"prompt_per_1m": 1}}
    by_name = read({"models": {"a": settings, "b:7b": None, "c": {}}})
    assert by_name == read({"models": [{"name": "a", **settings}, {"name": "b:7b"}, {"name": "c"}]})
    assert [model.name for model in by_name] == ["a", "b:7b", "c"]
    assert (by_name[0].input_price_usd, by_name[0].output_price_usd) == (1.0, None)


def test_settings_of_benchmarks(read):
    (model,) = read({"models": [{"name": "a", "concurrency": 3, "timeout_s": 0.5}]})
    assert (model.concurrency, model.timeout_s) == (3, 0.5)
    assert (ModelConfig("a").concurrency, ModelConfig("a").timeout_s) == (None, None)


def test_variables_are_replaced_where_that_is_asked_for(tmp_path, monkeypatch):
    path = tmp_path / "models.yaml"
    path.write_text(
        "models:\n- {name: a, endpoint: 'http://${HOST}/v1', api_key: '${KEY}', max_tokens: '${MOST}'}\n"
        "- {name: b, headers: {X: 'Token ${KEY}'}}\n"
    )
    monkeypatch.delenv("HOST", raising=False)
    monkeypatch.delenv("MOST", raising=False)
    monkeypatch.setenv("KEY", "sk-1")
    with pytest.raises(ConfigError) as caught:
        read_models(path, expanded=True)
    assert str(caught.value) == (
        f"{path}: models[0].endpoint: the environment variable HOST is not set; "
        "models[0].max_tokens: the environment variable MOST is not set"
    )
    monkeypatch.setenv("HOST", "localhost:1")
    monkeypatch.setenv("MOST", "12")
    a, b = read_models(path, expanded=True)
    assert (a.endpoint, a.api_key, a.max_tokens) == ("http://localhost:1/v1", "sk-1", 12)
    assert b.own_headers() == {"x": "Token sk-1"}


def test_an_own_header_wins_over_the_key():
    assert ModelConfig("a", api_key="k").own_headers() == {"authorization": "Bearer k"}
    assert ModelConfig("a", api_key="k", headers={"Authorization": "Basic x", "X-Y": "z"}).own_headers() == {
        "authorization": "Basic x",
        "x-y": "z",
    }
    assert ModelConfig("a").own_headers() == {}


def test_secrets_are_not_in_the_repr(read):
    (model,) = read({"models": [{"name": "a", "api_key": "sk-1", "headers": {"Authorization": "Bearer sk-2"}}]})
    assert "sk-" not in repr(model)


def one(**values):
    return {"models": [{"name": "a", **values}]}


TEXT = "expected a text of one line that is not empty, got"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "expected a mapping, got nothing; models: expected a list of 1 to 10000 models, got nothing"),
        ("- a", "expected a mapping, got a list; models: expected a list of 1 to 10000 models, got nothing"),
        ("models: []", "models: expected a list of 1 to 10000 models, got 0 of them"),
        ("models: gpt", "models: expected a list of 1 to 10000 models, got a text"),
        ("models: [gpt]", "models[0]: expected a mapping, got a text"),
        ("models: {a: 3}", "models.a: expected a mapping, got a number"),
        ("models: {a: {name: b}}", "models.a.name: unknown key; the name stands before the colon"),
        ("model: [{name: a}]\nmodels: [{name: b}]", "model: unknown key; expected one of models"),
        ({"models": [{"endpoint": "http://a"}]}, f"models[0].name: {TEXT} None"),
        ({"models": [{"name": 5}]}, f"models[0].name: {TEXT} 5"),
        ({"models": [{"name": " "}]}, f"models[0].name: {TEXT} ' '"),
        ({"models": [{"name": "a\nb"}]}, f"models[0].name: {TEXT} 'a\\nb'"),
        (
            {"models": [{"name": "a"}, {"name": "b"}, {"name": "a"}]},
            "models: expected each name once, got 'a' 2 times",
        ),
        (one(endpoint="localhost:8000"), "models[0].endpoint: expected an http:// or https:// address, got 'localhost"),
        (one(endpoint=["a"]), f"models[0].endpoint: {TEXT} ['a']"),
        (one(max_tokens=0), "models[0].max_tokens: expected an integer from 1 to 2147483648, got 0"),
        (one(max_tokens=1.5), "models[0].max_tokens: expected an integer from 1 to 2147483648, got 1.5"),
        (one(max_tokens=True), "models[0].max_tokens: expected an integer from 1 to 2147483648, got True"),
        (one(concurrency=0), "models[0].concurrency: expected an integer from 1 to 65536, got 0"),
        (one(timeout_s=0), "models[0].timeout_s: expected a number from 0.001 to 86400, got 0"),
        (one(temperature=-1), "models[0].temperature: expected a number from 0 to 100, got -1"),
        (one(temperature="hot"), "models[0].temperature: expected a number from 0 to 100, got 'hot'"),
        (one(headers=["a"]), "models[0].headers: expected a mapping, got a list"),
        (one(headers={"a b": "c"}), "models[0].headers: expected names of HTTP headers, got 'a b'"),
        (one(pricing=3), "models[0].pricing: expected a mapping, got a number"),
        (one(pricing={"currency": "EUR"}), "models[0].pricing.currency: expected USD, got 'EUR'"),
        (
            one(pricing={"prompt_per_1m": -0.1}),
            "models[0].pricing.prompt_per_1m: expected a number from 0 to 1e+06, got -0.1",
        ),
        (
            "models: [{name: a, pricing: {completion_per_1m: .nan}}]",
            "models[0].pricing.completion_per_1m: expected a number from 0 to 1e+06, got nan",
        ),
        (
            one(pricing={"completion_per_1m": "$3"}),
            "models[0].pricing.completion_per_1m: expected a number from 0 to 1e+06, got '$3'",
        ),
        (
            one(pricing={"input": 3}),
            "models[0].pricing.input: unknown key; expected one of currency, prompt_per_1m, completion_per_1m",
        ),
        (
            one(promt="x"),
            "models[0].promt: unknown key; expected one of pricing, name, endpoint, api_key, headers, max_tokens, temp",
        ),
        ("models: [{name: a, name: b}]", "line 1, column 20: the key 'name' occurs twice"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(read, tmp_path, content, problem):
    with pytest.raises(ConfigError) as caught:
        read(content)
    assert str(caught.value).startswith(f"{tmp_path / 'models.yaml'}: {problem}")
    assert "models[0].name: " not in str(caught.value) or "name" in problem
    assert "\n" not in str(caught.value)


def test_all_problems_come_at_once(read):
    with pytest.raises(ConfigError) as caught:
        read({"models": [{"name": "a", "max_tokens": 0, "oops": 1}, {"temperature": "x"}], "more": 1})
    text = str(caught.value)
    for path in ("models[0].max_tokens", "models[0].oops", "models[1].name", "models[1].temperature", "more"):
        assert f"{path}: " in text


def test_the_line_has_an_end(read):
    with pytest.raises(ConfigError) as caught:
        read({"models": [f"m{i}" for i in range(50)]})
    assert str(caught.value).endswith("; models[19]: expected a mapping, got a text; and 30 more")


@pytest.mark.parametrize("secret", [["sk-secret"], {"k": "sk-secret"}, "sk-secret\nx", " sk-secret\x00"])
def test_a_bad_secret_is_not_shown(read, secret):
    for content in (one(api_key=secret), one(headers={"Authorization": secret})):
        with pytest.raises(ConfigError, match="expected a text of one line that is not empty, got a ") as caught:
            read(content)
        assert "sk-" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*absent\.yaml: No such file or directory"):
        read_models(tmp_path / "absent.yaml")


KEYS = [
    "models",
    "name",
    "endpoint",
    "api_key",
    "headers",
    "max_tokens",
    "temperature",
    "pricing",
    "prompt_per_1m",
    "x",
]
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 5) | st.floats() | st.sampled_from(["a", "", "http://a", "USD"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None)
@given(models=ANY)
def test_any_document_gives_models_or_a_one_line_error(tmp_path_factory, models):
    path = tmp_path_factory.getbasetemp() / "any_models.yaml"
    path.write_text(dump_yaml({"models": models}))
    text = f"{path}: "
    try:
        assert all(model.name for model in read_models(path))
    except ConfigError as error:
        text = str(error)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
