"""Options of `gpu-select route` that belong to Ray; what they do is tested in tests/ray_data."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--engine", "ray"], "the workers of --engine ray share shards: give it with --shard-rows"),
        (
            ["--shard-rows", 5, "--address", "auto"],
            "--address is that of a Ray cluster: give it with --engine ray",
        ),
        (["--engine", "spark"], "'spark' is not one of 'local', 'ray'"),
    ],
)
def test_options_that_do_not_go_together(cli, options, text):
    done = cli("route", "--input", "log.jsonl", "--output", "out", *options)
    assert done.status == 2
    assert text in done.err
