from __future__ import annotations

import pytest

from gpu_select.benchmark.proxy import proxy_for
from gpu_select.errors import ConfigError


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


def test_no_proxy_by_default():
    assert proxy_for("https://api.example.com/v1") is None


def test_the_scheme_chooses(environment):
    environment.setenv("https_proxy", "http://proxy:3128")
    assert proxy_for("https://api.example.com/v1") == "http://proxy:3128"
    assert proxy_for("http://api.example.com/v1") is None
    environment.setenv("ALL_PROXY", "other:1")
    assert proxy_for("http://api.example.com/v1") == "http://other:1"


def test_some_hosts_are_reached_directly(environment):
    environment.setenv("http_proxy", "http://proxy:3128")
    environment.setenv("no_proxy", "example.com,10.0.0.7")
    assert proxy_for("http://api.example.com/v1") is None
    assert proxy_for("http://10.0.0.7:8000/v1") is None
    assert proxy_for("http://10.0.0.8:8000/v1") == "http://proxy:3128"


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "127.8.8.8:1", "[::1]:8000", "a.localhost"])
def test_this_machine_needs_none(environment, host):
    environment.setenv("http_proxy", "http://proxy:3128")
    assert proxy_for(f"http://{host}/v1") is None


def test_a_proxy_of_another_kind_is_refused_without_showing_its_password(environment):
    environment.setenv("https_proxy", "socks5://user:secret@proxy:1080")
    with pytest.raises(ConfigError) as caught:
        proxy_for("https://api.example.com/v1")
    assert str(caught.value) == (
        "the proxy for https:// addresses (environment): expected http:// or https://, got 'socks5'"
    )
