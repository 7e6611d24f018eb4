"""The router inside a FastAPI server of your own.

    pip install fastapi uvicorn
    ROUTER=my-router/ uvicorn serve_fastapi:app --port 8000
    curl localhost:8000/route --json '{"queries": ["Integrate x^2."], "domains": ["math"]}'

ROUTER is what `Router.save_pretrained` or `gpu-select train` wrote, or a hub id. gpu-select serve has more: batching
across requests, failover, streaming, metrics.
"""

import os
import threading
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from gpu_select import GpuSelectError, Router


class Queries(BaseModel):
    """The body of a request."""

    queries: list[str] = Field(min_length=1, max_length=1024)
    domains: list[str | None] | None = None
    candidates: list[str] | None = None


@asynccontextmanager
async def lifespan(app: FastAPI):
    """Load the router before the first request."""
    app.state.router = Router.from_pretrained(os.environ["ROUTER"], device=os.environ.get("DEVICE", "auto"))
    app.state.lock = threading.Lock()
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/route")
def route(body: Queries) -> list[dict]:  # not async: FastAPI gives it a thread, and the event loop goes on
    """The model for each query; all queries of a request share one forward pass."""
    try:
        with app.state.lock:
            routes = app.state.router.route(body.queries, body.domains, candidates=body.candidates)
    except GpuSelectError as error:
        raise HTTPException(422, str(error)) from error
    return list(routes.rows())
