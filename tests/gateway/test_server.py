"""The life of the process: it listens, reloads, finishes what it has begun, and stops."""

from __future__ import annotations

import http.client
import json
import signal
import socket
from pathlib import Path

import pytest

from gpu_select.errors import ConfigError, InputError
from gpu_select.gateway import serve

openai = pytest.importorskip("openai")
PROGRAM = Path(__file__).with_name("gateway_program.py")


@pytest.fixture
def running(processes, write_config):
    """A gateway in front of one endpoint, and where its configuration lies."""
    port = processes.upstream("small")
    path = write_config({"small": port}, {"shutdown_s": 5})
    return processes.gateway(PROGRAM, path), path, port


def client_of(gateway):
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, timeout=20)


def ask(gateway, text="x", **more):
    return client_of(gateway).chat.completions.create(
        model="auto", messages=[{"role": "user", "content": text}], **more
    )


def status_of(gateway, path):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    connection.request("GET", path)
    return connection.getresponse().status


def test_a_stream_is_finished_after_sigterm_and_nothing_new_is_begun(running):
    gateway, _, _ = running
    stream = iter(ask(gateway, "please slow stream", stream=True))
    assert next(stream).choices[0].delta.content == "0 "
    gateway.signal(signal.SIGTERM)
    gateway.wait_for("stopping")
    with pytest.raises(openai.APIConnectionError):
        ask(gateway)
    texts = [chunk.choices[0].delta.content for chunk in stream]
    assert texts == [f"{i} " for i in range(1, 100)]
    assert gateway.process.wait(10) == 0
    assert gateway.wait_for("stopped")


def test_after_the_deadline_streams_are_cut(processes, write_config):
    path = write_config({"small": processes.upstream("small")}, {"shutdown_s": 0.2})
    gateway = processes.gateway(PROGRAM, path)
    stream = iter(ask(gateway, "please slow stream", stream=True))
    next(stream)
    gateway.signal(signal.SIGTERM)
    with pytest.raises(openai.APIConnectionError):
        list(stream)
    assert gateway.process.wait(10) == 0


def test_a_second_signal_ends_at_once(running):
    gateway, _, _ = running
    stream = iter(ask(gateway, "please slow stream", stream=True))
    next(stream)
    gateway.signal(signal.SIGINT)
    gateway.wait_for("stopping")
    gateway.signal(signal.SIGINT)
    assert gateway.process.wait(10) == 0
    with pytest.raises(openai.APIConnectionError):  # it would have had five seconds more, and needed three
        list(stream)


def test_sighup_reloads_and_a_broken_file_changes_nothing(running, processes, write_config):
    gateway, path, port = running
    assert ask(gateway).model == "small"
    path.write_text("decisions: [")
    gateway.signal(signal.SIGHUP)
    assert "config.yaml: line" in gateway.wait_for("reload refused")["reason"]
    assert ask(gateway).model == "small"
    write_config({"large": port}, {"shutdown_s": 7})
    gateway.signal(signal.SIGHUP)
    assert gateway.wait_for("reloaded")["generation"] == 2
    assert ask(gateway).model == "large"
    assert gateway.wait_for("shutdown_s takes effect at the next start")["level"] == "warning"
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_for("stopping")["in_flight_s"] == 5


def test_a_model_that_no_endpoint_serves_is_refused(running, write_config):
    gateway, path, _ = running
    document = path.read_text()
    path.write_text(document.replace("name: small", "name: tiny"))
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    connection.request("POST", "/admin/reload")
    answer = connection.getresponse()
    error = json.loads(answer.read())["error"]
    assert (answer.status, error["code"]) == (422, "invalid_config")
    expected = "decisions[0].modelRefs[0].model: expected a model that an endpoint serves (tiny), got 'small'"
    assert expected in error["message"]
    assert ask(gateway).model == "small"


def test_an_address_that_is_taken_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"cannot listen on 127.0.0.1:{port}: .*in use \(choose others"):
            serve(lambda: pytest.fail("loaded"), "127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "reason"),
    [("203.0.113.1", "Cannot assign requested address"), ("no.such.host.invalid", "not known|resolution")],
)
def test_an_address_that_is_not_of_this_machine_is_found_before_anything_is_loaded(host, reason):
    with pytest.raises(InputError, match=f"cannot listen on {host}:80: .*({reason})"):
        serve(lambda: pytest.fail("loaded"), host, 80)


def test_a_bad_configuration_at_the_start_is_the_callers():
    def load():
        raise ConfigError("decisions", 5, "a list")

    with pytest.raises(ConfigError, match="decisions: expected a list, got 5"):
        serve(load, "127.0.0.1", 0)
