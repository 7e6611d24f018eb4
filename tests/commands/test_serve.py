"""The command `serve`: what is wrong is said in one line, before anything listens."""

from __future__ import annotations

import importlib.util
import socket

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("prometheus_client")


def test_a_configuration_is_needed(cli):
    done = cli("serve")
    assert done.status == 2
    assert "Missing option '--config'" in done.err


def test_a_missing_file_is_one_line(cli, tmp_path):
    done = cli("serve", "--config", tmp_path / "config.yaml", "--port", 0)
    assert done.status == 1
    assert done.err == f"error: cannot read {tmp_path / 'config.yaml'}: No such file or directory\n"


def test_all_problems_come_in_one_line(cli, tmp_path):
    (tmp_path / "config.yaml").write_text("decisions: 5\ngateway: {prot: 1}\n")
    done = cli("serve", "--config", tmp_path / "config.yaml", "--port", 0)
    assert done.status == 1
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    for problem in (
        "decisions: expected a list of 1 to 1000",
        "gateway.prot: unknown key",
        "endpoints: expected a list",
    ):
        assert problem in done.err


def test_a_port_that_is_taken_is_one_line(cli, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("serve", "--config", tmp_path / "config.yaml", "--port", port)
    assert done.status == 1
    assert done.err.startswith(f"error: cannot listen on 127.0.0.1:{port}: Address already in use")


@pytest.mark.parametrize("port", ["-1", "65536", "x"])
def test_a_port_that_cannot_be(cli, port):
    done = cli("serve", "--config", "config.yaml", "--port", port)
    assert done.status == 2
    assert "Invalid value for '--port'" in done.err


@pytest.mark.parametrize(("module", "package"), [("aiohttp", "aiohttp"), ("prometheus_client", "prometheus-client")])
def test_a_missing_package_is_named_with_its_installation(cli, monkeypatch, module, package):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else found(name))
    done = cli("serve", "--config", "config.yaml")
    assert done.status == 1
    missing = f"error: gpu-select serve needs the package {package}, which is not installed"
    assert done.err == f"{missing}: pip install 'gpu-select[serve]'\n"
