"""Errors come out of other processes as they went in."""

from __future__ import annotations

import pickle

import pytest

from gpu_select import errors
from gpu_select.download import connection  # its errors are among the kinds


def kinds(kind=errors.GpuSelectError):
    return [kind, *(below for sub in kind.__subclasses__() for below in kinds(sub))]


ARGUMENTS = {
    errors.ConfigError: ("workers", 0, "an integer >= 1"),
    errors.FileFormatError: ("knn_model.json", "labels", "400 entries", "399"),
    errors.MissingDependencyError: ("ray", "routing on a cluster", "'gpu-select[ray]'"),
    connection.RefusedError: ("hub.example", 503, "", "busy"),
    connection.UnreachableError: ("https://hub.example", "no route"),
}


@pytest.mark.parametrize("kind", kinds())
def test_an_error_keeps_its_kind_and_text_from_one_process_to_another(kind):
    error = kind(*ARGUMENTS.get(kind, ("a text of one line",)))
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - its own
    assert type(copy) is kind
    assert str(copy) == str(error) != ""
    assert str(pickle.loads(pickle.dumps(copy))) == str(error)  # noqa: S301 - its own


def test_several_problems_keep_their_one_text():
    error = errors.ConfigError.joined(["one", "two"])
    assert str(error) == "one; two"
    assert str(pickle.loads(pickle.dumps(error))) == "one; two"  # noqa: S301 - its own
