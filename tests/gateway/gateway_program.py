"""A gateway in a process of its own, with the endpoints and settings of a config.yaml, and a router of a few lines.

python gateway_program.py CONFIG
"""

from __future__ import annotations

import sys

from gpu_select.config import read_config
from gpu_select.decisions import Decided
from gpu_select.gateway import serve, write_json_lines
from gpu_select.gateway.service import Service


def load() -> Service:
    config = read_config(sys.argv[1], serving=True)
    models = tuple(endpoint.name for endpoint in config.endpoints)

    def decide(queries):
        """The models in turn, as the text's length says."""
        out = []
        for query in queries:
            first = len(query.text) % len(models)
            ranking = models[first:] + models[:first]
            out.append(Decided(ranking[0], ranking, config.decisions[0].name, "math", False, 1.0, 0.5, 1))
        return out

    return Service(config.gateway, config.endpoints, decide)


if __name__ == "__main__":
    write_json_lines()
    serve(load, "127.0.0.1", 0)
