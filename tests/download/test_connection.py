"""What a hub answers, or does not: bounded, and one line that names the cure."""

from __future__ import annotations

import socket

import pytest
from huggingface_hub import constants

from gpu_select.download import connection as module
from gpu_select.download.connection import Connection, RefusedError, UnreachableError
from gpu_select.errors import ConfigError, HubError


def test_a_document_is_read(hub):
    hub.add("some/models", {"knn_model.json": b"{}"})
    assert Connection().get_json("models/some/models")["id"] == "some/models"


def test_the_endpoint_is_the_librarys(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", hub.url() + "/")
    assert Connection().endpoint == hub.url()


@pytest.mark.parametrize("document", [b"<html>Sign in to this network</html>", b"[1]", b'{"a": NaN}', b""])
def test_what_is_no_hub_is_named(hub, document):
    hub.add("some/models", {})
    hub.listing = lambda _: document
    with pytest.raises(HubError) as caught:
        Connection().get_json("models/some/models")
    assert str(caught.value) == f"{hub.url()}: expected the answer of a hub, got {document!r}: check HF_ENDPOINT"


def test_a_document_has_a_bound(hub, monkeypatch):
    monkeypatch.setattr(module, "_MAX_DOCUMENT_BYTES", 1 << 20)
    hub.add("some/models", {})
    hub.listing = lambda _: {"padding": "x" * (1 << 20)}
    with pytest.raises(HubError, match=r"expected the answer of a hub, got more than 1 MiB: check HF_ENDPOINT$"):
        Connection().get_json("models/some/models")


def test_a_refusal_says_where_and_why(hub):
    with pytest.raises(RefusedError) as caught:
        Connection().get_json("models/some/models")
    refused = caught.value
    assert (refused.status, refused.code, refused.message) == (401, "RepoNotFound", "'Repository not found'")
    assert refused.host == hub.url().removeprefix("http://")
    assert not refused.is_temporary


def test_a_hub_that_cannot_be_reached_is_named_with_the_cure(hub, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    with pytest.raises(UnreachableError) as caught:
        Connection().get_json("models/some/models")
    assert str(caught.value).startswith(f"{url} cannot be reached (")
    assert str(caught.value).endswith("): check the network, HF_ENDPOINT and the proxy's settings")


@pytest.mark.parametrize("endpoint", ["localhost:8000", "ftp://localhost", "http://[", "", "http://a b/"])
def test_an_endpoint_that_is_no_address_is_no_traceback(hub, monkeypatch, endpoint):
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    with pytest.raises(UnreachableError, match=r"cannot be reached .*: check the network, HF_ENDPOINT"):
        Connection().get_json("models/some/models")


def test_a_password_in_the_address_is_not_printed(hub, monkeypatch):
    hub.add("some/models", {})
    monkeypatch.setattr(constants, "ENDPOINT", hub.url().replace("//", "//me:secret@"))
    connection = Connection()
    assert connection.shown == hub.url()
    assert connection.get_json("models/some/models")
    hub.listing = lambda _: b"no"
    with pytest.raises(HubError) as unlike:
        connection.get_json("models/some/models")
    with pytest.raises(RefusedError) as refused:
        connection.get_json("models/some/others")
    monkeypatch.setattr(constants, "ENDPOINT", "http://me:secret@127.0.0.1:9")
    with pytest.raises(UnreachableError) as unreachable:
        Connection().get_json("models/some/models")
    for caught in (unlike, refused, unreachable):
        assert "secret" not in str(caught.value)


def test_a_silent_hub_is_not_waited_for_without_end(hub, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
        with pytest.raises(UnreachableError, match="timed out"):
            Connection().get_json("models/some/models")


def test_offline_nothing_is_asked(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"^HF_HUB_OFFLINE is set, so nothing is downloaded: unset it, or use files"):
        Connection().get_json("models/some/models")
    assert hub.requests == []


def test_a_token_comes_from_the_user_or_the_environment(hub, monkeypatch):
    hub.add("some/models", {})
    monkeypatch.setenv("HF_TOKEN", "hf_guest")
    for given, sent in ((None, "Bearer hf_guest"), ("hf_reader", "Bearer hf_reader")):
        connection = Connection(given)
        assert connection.has_token
        connection.get_json("models/some/models")
        assert hub.requests[-1].headers["authorization"] == sent
    monkeypatch.delenv("HF_TOKEN")
    connection = Connection()
    assert not connection.has_token
    connection.get_json("models/some/models")
    assert "authorization" not in hub.requests[-1].headers


@pytest.mark.parametrize("token", ["", "hf_secret\nX-Other: 1", "hf secret", "hf_sécret"])
def test_a_token_that_is_none_is_not_printed(hub, token):
    with pytest.raises(ConfigError) as caught:
        Connection(token)
    assert str(caught.value) == (
        "token: expected letters, digits and punctuation without spaces, such as hf_..., got something else (not shown)"
    )
