"""The section `gateway`: defaults, every setting, and every problem with its path."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from gpu_select.config.environment import expand
from gpu_select.config.gateway import (
    BatchingConfig,
    BreakerConfig,
    GatewayConfig,
    UpstreamConfig,
    parse_gateway,
)
from gpu_select.config.sections import Problems, Section
from gpu_select.errors import ConfigError
from gpu_select.yamlio import load_yaml


def parse(value, **environment):
    problems = Problems("config.yaml")
    value = expand(value, problems.add_missing, where="gateway", environment=environment)
    config = parse_gateway(Section(value, "gateway", problems))
    problems.raise_if_any()
    return config


def test_without_the_section_the_defaults_hold():
    assert parse_gateway(None) == parse({}) == GatewayConfig()


def test_the_documented_example_shows_every_setting_with_its_default():
    example = load_yaml(Path(__file__).parents[2] / "configs" / "config.yaml")["gateway"]
    assert parse(example) == GatewayConfig()
    shown = set(example) | {"api_keys", "admin_keys"}
    assert shown == {"max_body_mb" if one.name == "max_body_bytes" else one.name for one in fields(GatewayConfig)}
    for name, kind in (("batching", BatchingConfig), ("upstream", UpstreamConfig), ("breaker", BreakerConfig)):
        assert [*example[name]] == [one.name for one in fields(kind)]


def test_every_setting():
    config = parse(
        {
            "aliases": ["auto", "MoM"],
            "route_on": "conversation",
            "max_body_mb": 0.5,
            "body_timeout_s": 5,
            "shutdown_s": 0,
            "api_keys": ["${KEY}", "other"],
            "admin_keys": ["admin"],
            "batching": {"max_batch": 8, "max_wait_ms": 0, "max_queue": 9},
            "upstream": {
                "connect_s": 1,
                "first_byte_s": 2,
                "idle_s": 3,
                "total_s": 4,
                "max_connections": 5,
                "max_connections_per_endpoint": 6,
            },
            "breaker": {"failures": 1, "open_s": 2, "max_open_s": 3, "probes": 4},
        },
        KEY="from the environment",
    )
    assert config == GatewayConfig(
        aliases=("auto", "MoM"),
        route_on="conversation",
        max_body_bytes=512 << 10,
        body_timeout_s=5,
        shutdown_s=0,
        api_keys=("from the environment", "other"),
        admin_keys=("admin",),
        batching=BatchingConfig(8, 0, 9),
        upstream=UpstreamConfig(1, 2, 3, 4, 5, 6),
        breaker=BreakerConfig(1, 2, 3, 4),
    )
    assert "environment" not in repr(config)
    assert "admin" not in repr(config).replace("admin_keys", "")


def test_a_first_rest_beyond_the_longest_one_of_the_defaults_is_the_longest():
    assert parse({"breaker": {"open_s": 100}}).breaker == BreakerConfig(open_s=100, max_open_s=100)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], "gateway: expected a mapping, got a list"),
        ({"port": 80}, "gateway.port: unknown key; expected one of "),
        ({"batching": {"size": 1}}, "gateway.batching.size: unknown key; expected one of max_wait_ms, max_batch"),
        ({"upstream": {"x": 1}}, "gateway.upstream.x: unknown key"),
        ({"breaker": {"x": 1}}, "gateway.breaker.x: unknown key"),
        ({"route_on": "all"}, "gateway.route_on: expected one of last_user_message, conversation, got 'all'"),
        ({"aliases": "auto"}, "gateway.aliases: expected a list of 0 to 100 names, got a text"),
        ({"aliases": ["a", 5]}, "gateway.aliases[1]: expected a text of one line that is not empty, got 5"),
        ({"api_keys": ["", "s\n3cret"]}, "gateway.api_keys[1]: expected a text of one line that is not empty"),
        ({"max_body_mb": 0}, "gateway.max_body_mb: expected a number from 0.001 to 1024, got 0"),
        ({"batching": {"max_batch": 0}}, "gateway.batching.max_batch: expected an integer from 1 to 65536, got 0"),
        ({"upstream": {"idle_s": 0}}, "gateway.upstream.idle_s: expected a number from 0.001 to 86400, got 0"),
        (
            {"breaker": {"open_s": 9, "max_open_s": 5}},
            "gateway.breaker.max_open_s: expected at least open_s, which is 9, got 5",
        ),
    ],
)
def test_a_problem_is_named_with_its_path(value, problem):
    with pytest.raises(ConfigError) as error:
        parse(value)
    assert problem in str(error.value)
    assert "3cret" not in str(error.value)


def test_all_problems_come_at_once():
    with pytest.raises(ConfigError) as error:
        parse({"shutdown_s": -1, "batching": {"max_queue": "x"}, "api_keys": [5]})
    assert str(error.value).count("; ") == 2
