from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

TEXTS = ["what is the number of the city", "explain the law", "solve"]


@pytest.fixture
def client(example, saved, monkeypatch):
    from fastapi.testclient import TestClient

    monkeypatch.setenv("ROUTER", str(saved))
    monkeypatch.setenv("DEVICE", "cpu")
    with TestClient(example("serve_fastapi").app) as client:
        yield client


def test_it_decides_as_the_router(client, router):
    body = {"queries": TEXTS, "domains": ["math", None, "law"], "candidates": ["a", "c"]}
    answer = client.post("/route", json=body)
    assert answer.status_code == 200
    expected = router.route(TEXTS, ["math", None, "law"], candidates=["a", "c"])
    assert answer.json() == list(expected.rows())


def test_many_threads_at_once(client, router):
    expected = [list(router.route([text]).rows()) for text in TEXTS]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: client.post("/route", json={"queries": [TEXTS[i % 3]]}).json(), range(40)))
    for i, answer in enumerate(answers):
        assert answer[0]["model"] == expected[i % 3][0]["model"]
        assert abs(answer[0]["score"] - expected[i % 3][0]["score"]) < 1e-5


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"queries": []}, "at least 1 item"),
        ({"queries": ["x"], "domains": ["cooking"]}, "domain: expected one of biology, business"),
        ({"queries": ["x", " "]}, "texts[1]: expected a text that is not empty"),
        ({"queries": ["x"], "candidates": ["gpt-9"]}, "candidates: expected names out of a, b, c, got 'gpt-9'"),
        ({"queries": "x"}, "valid list"),
    ],
)
def test_what_a_client_can_get_wrong(client, body, text):
    answer = client.post("/route", json=body)
    assert answer.status_code == 422
    assert text in answer.text
