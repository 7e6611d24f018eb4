"""The router as a Ray Serve deployment: queries that arrive together share one forward pass.

    pip install 'ray[serve]'
    ROUTER=/models/my-router serve run serve_ray:app
    curl localhost:8000 --json '{"query": "Integrate x^2.", "domain": "math"}'

ROUTER is what `Router.save_pretrained` or `gpu-select train` wrote, or a hub id; every node has to see it.
"""

import os

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

from gpu_select import GpuSelectError, Router

GPUS = float(os.environ.get("GPUS", "0"))  # of each replica


@serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_gpus": GPUS})
class RouterDeployment:
    """One replica holds one router."""

    def __init__(self, router: str) -> None:
        self.router = Router.from_pretrained(router, device="cuda" if GPUS else "cpu")

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.005)
    async def decide(self, queries: list[dict]) -> list[dict]:
        """A row for each query; one that is wrong does not spoil the others."""
        try:
            return self.route(queries)
        except GpuSelectError:
            return [self.one(query) for query in queries]

    def route(self, queries: list[dict]) -> list[dict]:
        """All in one forward pass."""
        texts, domains = ([query.get(key) for query in queries] for key in ("query", "domain"))
        return list(self.router.route(texts, domains).rows())

    def one(self, query: dict) -> dict:
        """By itself, with its own error."""
        try:
            return self.route([query])[0]
        except GpuSelectError as error:
            return {"error": str(error)}

    async def __call__(self, request: Request) -> JSONResponse:
        """POST {"query": ..., "domain": ...}."""
        row = await self.decide(await request.json())
        return JSONResponse(row, status_code=422 if row["error"] else 200)


app = RouterDeployment.bind(os.environ.get("ROUTER", "models/"))
