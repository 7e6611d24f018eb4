"""A file's bytes over connections that break, from servers that do as they like."""

from __future__ import annotations

import random

import pytest

from gpu_select.download import fetching
from gpu_select.download.fetching import fetch, size_text
from gpu_select.download.partial import PartialFile
from gpu_select.errors import HubError

DATA = random.Random(0).randbytes(100_003)
NAME = "folder/knn model #1.json"


@pytest.fixture(params=["regular", "large"])
def repository(request, published):
    return published({NAME: DATA}, large={NAME} if request.param == "large" else set())


@pytest.fixture
def fetched(tmp_path):
    """Call with a repository: fetches its file to the same place; what progress told, and the place."""

    def run(repository, *, max_bytes=1 << 20):
        told = []
        with PartialFile(tmp_path / "partial") as partial:
            fetch(repository, repository.files[NAME], partial, max_bytes=max_bytes, progress=told.append)
        assert (tmp_path / "partial").read_bytes() == DATA
        assert sum(told) == len(DATA)

    return run


def refusal(repository, path, **settings) -> str:
    with PartialFile(path) as partial, pytest.raises(HubError) as caught:
        fetch(repository, repository.files[NAME], partial, **{"max_bytes": 1 << 20} | settings)
    return str(caught.value)


def test_a_file_arrives(hub, repository, fetched):
    fetched(repository)
    assert hub.ranges(NAME) == [None]


def test_the_token_goes_to_the_hub_and_never_to_its_storage(hub, published, fetched):
    repository = published({NAME: DATA}, token="hf_reader", large={NAME}, is_private=True, is_gated=True)
    fetched(repository)
    sent = {(request.host, request.headers.get("authorization")) for request in hub.requests}
    assert sent == {("hub", "Bearer hf_reader"), ("storage", None)}


def test_the_token_stays_where_the_hub_redirects_within_itself(hub, published, fetched):
    fetched(published({NAME: DATA}, token="hf_reader", is_private=True))
    assert {request.headers.get("authorization") for request in hub.requests} == {"Bearer hf_reader"}


def test_a_cut_connection_goes_on_where_it_stopped(hub, hub_server, repository, fetched):
    hub.faults += [hub_server.cut(30_000), hub_server.cut(50_000)]
    fetched(repository)
    assert hub.ranges(NAME) == [None, "bytes=30000-", "bytes=80000-"]


def test_each_new_byte_gives_all_tries_back(hub, hub_server, repository, fetched):
    hub.faults += [hub_server.cut(1000) for _ in range(12)]
    fetched(repository)
    assert len(hub.ranges(NAME)) == 13


def test_a_second_run_goes_on_where_the_first_gave_up(hub, hub_server, repository, fetched, tmp_path):
    hub.faults += [hub_server.cut(30_000), *[hub_server.status(503)] * 3]
    text = refusal(repository, tmp_path / "partial")
    assert text.startswith(f"{NAME}: interrupted (127.0.0.1:")
    assert text.endswith(" answers 503); 30.0 kB of 100.0 kB are kept, and the same command goes on from there")
    assert len(hub.requests) == 1 + 2 * 4  # a listing, and each time the hub and where it sends
    hub.requests.clear()
    fetched(repository)
    assert hub.ranges(NAME) == ["bytes=30000-"]


def test_what_has_all_arrived_is_not_asked_for(hub, repository, fetched):
    fetched(repository)
    hub.requests.clear()
    fetched(repository)
    assert hub.requests == []


def test_a_hub_that_is_busy_for_a_moment_is_asked_again(hub, hub_server, repository, fetched):
    hub.faults += [hub_server.status(429), hub_server.status(500), hub_server.cut(0)]
    fetched(repository)
    assert hub.ranges(NAME) == [None] * 4


def test_tries_are_apart_and_ever_more_so(hub, hub_server, repository, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(fetching, "WAITS_S", (1.0, 3.0, 9.0))
    monkeypatch.setattr(fetching.time, "sleep", waits.append)
    hub.faults += [hub_server.status(500)] * 4
    refusal(repository, tmp_path / "partial")
    assert waits == [1.0, 3.0, 9.0]


def test_a_server_without_ranges_sends_all_of_it_again(hub, hub_server, repository, fetched):
    hub.faults.append(hub_server.cut(30_000))
    hub.ignores_ranges = True
    fetched(repository)
    assert hub.ranges(NAME) == [None, "bytes=30000-"]


@pytest.mark.parametrize("n_bytes", [100_004, 200_000])
def test_more_than_the_listing_says_is_no_beginning_of_it(hub, repository, fetched, tmp_path, n_bytes):
    (tmp_path / "partial").write_bytes(b"x" * n_bytes)
    fetched(repository)
    assert hub.ranges(NAME) == [None]


def test_without_a_size_the_answer_tells_where_the_end_is(hub, hub_server, published, fetched, tmp_path):
    hub.listing = lambda document: document | {"siblings": [{"rfilename": NAME}]}
    repository = published({NAME: DATA})
    hub.faults.append(hub_server.cut(30_000))
    fetched(repository)
    fetched(repository)  # all there, which only the hub can tell
    assert hub.ranges(NAME) == [None, "bytes=30000-", "bytes=100003-", None]


def test_more_bytes_than_the_listing_says_are_not_taken(hub, published, tmp_path):
    hub.listing = lambda document: document | {"siblings": [{"rfilename": NAME, "size": 50_000}]}
    text = refusal(published({NAME: DATA}), tmp_path / "partial")
    assert text == f"{NAME}: expected 50.0 kB at most, got more: the hub sends another file"
    assert (tmp_path / "partial").stat().st_size == 0


def test_a_file_beyond_all_bounds_is_not_begun(hub, repository, tmp_path):
    hub.requests.clear()
    assert refusal(repository, tmp_path / "partial", max_bytes=50_000) == (
        f"{NAME}: expected at most 50.0 kB, got 100.0 kB in the listing of some/repo: no file of this kind is so "
        "large; get it by hand if it is what you want"
    )
    assert hub.requests == []


def test_without_a_size_the_bound_holds_while_it_arrives(hub, published, tmp_path):
    hub.listing = lambda document: document | {"siblings": [{"rfilename": NAME}]}
    text = refusal(published({NAME: DATA}), tmp_path / "partial", max_bytes=50_000)
    assert text == f"{NAME}: expected 50.0 kB at most, got more: the hub sends another file"


def test_bytes_from_elsewhere_are_refused(hub, published, tmp_path):
    def elsewhere(handler, data):
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 70000-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - 70_000))
        handler.end_headers()
        handler.wfile.write(data[70_000:])

    hub.faults.append(elsewhere)
    text = refusal(published({NAME: DATA}), tmp_path / "partial")
    assert text == f"{NAME}: expected bytes from 0 or from where it stopped, got bytes from 70000"


@pytest.mark.parametrize("token", [None, "hf_guest"])
def test_a_gated_repository_names_its_page_and_the_cure(hub, published, tmp_path, token):
    repository = published({NAME: DATA}, token=token, is_gated=True)
    cure = "the token that was sent has no access yet" if token else "then set HF_TOKEN or give --token"
    assert refusal(repository, tmp_path / "partial") == (
        f"model repository some/repo on {hub.url()} is gated: ask its owner for access at {hub.url()}/some/repo; {cure}"
    )


def test_a_file_that_is_gone(hub, published, tmp_path):
    repository = published({NAME: DATA})
    hub.repos["model", "some/repo"].files = lambda commit: {}
    text = refusal(repository, tmp_path / "partial")
    assert text == f"model repository some/repo on {hub.url()}: a file of its own listing is not there (404): try again"


@pytest.mark.parametrize(
    ("number", "message", "text"),
    [
        (403, "", ": forbidden (403): HF_TOKEN or --token has to be a token that may read it"),
        (403, "no scope", ": forbidden (403, 'no scope'): HF_TOKEN or --token has to be a token that may read it"),
        (410, "gone", " answers 410 ('gone')"),
        (451, "", " answers 451 (no reason given)"),
    ],
)
def test_other_refusals_are_passed_on(hub, hub_server, published, tmp_path, number, message, text):
    hub.faults.append(hub_server.status(number, **({"X-Error-Message": message} if message else {})))
    assert refusal(published({NAME: DATA}), tmp_path / "partial").endswith(text)


def test_a_refusal_cannot_steer_the_terminal(hub, hub_server, published, tmp_path):
    hub.faults.append(hub_server.status(410, **{"X-Error-Message": "\x1b[2J" + "x" * 5000}))
    text = refusal(published({NAME: DATA}), tmp_path / "partial")
    assert text.isprintable()
    assert len(text) < 400


@pytest.mark.parametrize(
    ("n_bytes", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2_345_678, "2.3 MB"), (9e9, "9.0 GB")]
)
def test_sizes_are_for_people(n_bytes, text):
    assert size_text(int(n_bytes)) == text
