from __future__ import annotations

import pytest

from gpu_select.benchmark.targets import CallSettings, Target, named_models, resolve_targets
from gpu_select.config import ModelConfig
from gpu_select.errors import ConfigError

SETTINGS = CallSettings("http://localhost:8000/v1", 1024, 0.0, 600.0)
FULL = ModelConfig(
    "full", "https://a/v1/", "sk-file", {"X-Own": "1"}, 5, 0.7, 3, 9.0, input_price_usd=1.0, output_price_usd=4.0
)


def test_defaults_lose_to_the_entry():
    bare, full = resolve_targets([ModelConfig("bare"), FULL], SETTINGS, ())
    assert bare == Target("bare", "http://localhost:8000/v1/chat/completions", {}, 1024, 0.0, 600.0, None, None, None)
    assert full == Target(
        "full",
        "https://a/v1/chat/completions",
        {"authorization": "Bearer sk-file", "x-own": "1"},
        5,
        0.7,
        9.0,
        3,
        1.0,
        4.0,
    )


@pytest.mark.parametrize("name", ["endpoint", "api_key", "max_tokens", "temperature", "timeout_s"])
def test_what_is_given_wins_over_the_entry_and_nothing_else_does(name):
    settings = CallSettings("http://given/v1", 77, 0.25, 8.0, "sk-given")
    before, after = (resolve_targets([FULL], settings, given)[0] for given in ((), (name,)))
    values = {
        "endpoint": ("url", "http://given/v1/chat/completions"),
        "api_key": ("headers", {"authorization": "Bearer sk-given", "x-own": "1"}),
        "max_tokens": ("max_tokens", 77),
        "temperature": ("temperature", 0.25),
        "timeout_s": ("timeout_s", 8.0),
    }
    field, expected = values[name]
    differing = {key for key in vars(before) if getattr(before, key) != getattr(after, key)}
    assert differing == {field}
    assert getattr(after, field) == expected


def test_a_key_that_is_given_wins_over_a_header_too():
    model = ModelConfig("a", headers={"Authorization": "Bearer file", "X": "1"})
    settings = CallSettings("http://h/v1", 1, 0.0, 1.0, "given")
    assert resolve_targets([model], settings, ("api_key",))[0].headers == {"x": "1", "authorization": "Bearer given"}
    assert resolve_targets([model], settings, ())[0].headers["authorization"] == "Bearer file"


@pytest.mark.parametrize(
    ("names", "got"), [([], "''"), (["a", "a"], "'a'"), (["a\nb"], "'a\\nb'"), (["\udcff"], "'\\udcff'")]
)
def test_names_that_cannot_be(names, got):
    with pytest.raises(ConfigError) as caught:
        named_models(names)
    assert str(caught.value) == f"models: expected names of models with commas between, each once, got {got}"


@pytest.mark.parametrize(
    "endpoint", ["localhost:8000", "http://", "http://:8000/v1", "http://a:b/v1", "http://[::1/v1"]
)
def test_an_endpoint_that_is_no_address(endpoint):
    with pytest.raises(ConfigError) as caught:
        resolve_targets([ModelConfig("a")], CallSettings(endpoint, 1, 0.0, 1.0), ())
    assert str(caught.value) == (f"endpoint: expected an address such as http://localhost:8000/v1, got {endpoint!r}")


def test_an_address_of_an_entry_is_not_shown_as_it_may_have_secrets():
    with pytest.raises(ConfigError) as caught:
        resolve_targets([ModelConfig("a", "http://u:sk-secret@:x/v1")], SETTINGS, ())
    assert str(caught.value) == "endpoint of 'a': expected an address such as http://localhost:8000/v1"


@pytest.mark.parametrize("key", ["", "  ", "sk-secret\n"])
def test_a_key_that_is_no_line_of_text(key):
    with pytest.raises(ConfigError) as caught:
        resolve_targets([ModelConfig("a")], CallSettings("http://h/v1", 1, 0.0, 1.0, key), ())
    assert str(caught.value) == "api-key: expected a text of one line that is not empty"


def test_secrets_are_in_no_repr():
    settings = CallSettings("http://h/v1", 1, 0.0, 1.0, "sk-secret")
    (target,) = resolve_targets([ModelConfig("a", headers={"X": "sk-secret"})], settings, ("api_key",))
    assert "sk-secret" not in repr(settings) + repr(target)


def test_secrets_are_masked_in_what_a_server_says():
    (target,) = resolve_targets(
        [ModelConfig("a", api_key="sk-1234", headers={"X-Key": "t0ken", "Y": "no"})], SETTINGS, ()
    )
    said = "Incorrect API key: sk-1234 (Bearer sk-1234), t0ken, no"
    assert target.without_secrets(said) == "Incorrect API key: *** (***), ***, no"


@pytest.mark.parametrize(
    ("prices", "tokens", "cost"),
    [
        ((1.0, 4.0), (1000, 500), 0.003),
        ((0.0, 0.0), (1000, 500), 0.0),
        ((1.0, None), (1000, 500), None),
        ((None, 1.0), (1000, 500), None),
        ((1.0, 4.0), (None, 500), None),
        ((1.0, 4.0), (1000, None), None),
    ],
)
def test_what_a_call_costs(prices, tokens, cost):
    model = ModelConfig("a", input_price_usd=prices[0], output_price_usd=prices[1])
    assert resolve_targets([model], SETTINGS, ())[0].cost_usd(*tokens) == cost
