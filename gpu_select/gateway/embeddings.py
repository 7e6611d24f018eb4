"""POST /v1/embeddings: by the router's own encoder, or by the endpoint that serves the named model."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence

import numpy as np
from aiohttp import web

from gpu_select.errors import GpuSelectError
from gpu_select.gateway import headers
from gpu_select.gateway.call import CALL, GATEWAY, read_json
from gpu_select.gateway.completions import error_of, pass_on
from gpu_select.gateway.embedder import Embedding
from gpu_select.gateway.errors import ModelNotFoundError
from gpu_select.gateway.schemas import EmbeddingRequest, embedding_request, requested_model
from gpu_select.jsonio import dumps, dumps_float32

__all__ = ["embeddings"]


async def embeddings(request: web.Request) -> web.StreamResponse:
    """POST /v1/embeddings."""
    gateway, call = request.app[GATEWAY], request[CALL]
    generation = gateway.generation
    body = await read_json(request, generation.settings)
    name = requested_model(body.values)
    own = generation.service.embedder
    if name in generation.endpoints and (own is None or name != own.name):
        return await pass_on(request, generation, [generation.endpoints[name]], "/embeddings", body, False, {})
    if own is None or name not in (own.name, *generation.settings.aliases):
        raise ModelNotFoundError(name)
    wanted = embedding_request(body.values, own.dim)
    try:
        embedded = await gateway.embed(own, wanted.texts)
    except GpuSelectError as error:
        raise error_of(error) from error
    n_truncated = sum(one.truncated for one in embedded)
    call.notes |= {"model": own.name, "texts": len(embedded), "truncated": n_truncated or None}
    # thousands of vectors are megabytes of digits: not in the event loop
    document = await asyncio.to_thread(_document, own.name, embedded, wanted)
    sent = {headers.SELECTED_MODEL: headers.safe_value(own.name)}
    if n_truncated:
        sent[headers.TRUNCATED] = str(n_truncated)
    return web.Response(body=document, content_type="application/json", headers=sent)


def _document(name: str, embedded: Sequence[Embedding], wanted: EmbeddingRequest) -> bytes:
    rows = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%s}' % (i, _vector(one, wanted))
        for i, one in enumerate(embedded)
    )
    n_tokens = sum(one.n_tokens for one in embedded)
    usage = b'{"prompt_tokens":%d,"total_tokens":%d}' % (n_tokens, n_tokens)
    return b'{"object":"list","data":[%s],"model":%s,"usage":%s}' % (rows, dumps(name), usage)


def _vector(one: Embedding, wanted: EmbeddingRequest) -> bytes:
    if wanted.encoding == "float":
        return dumps_float32(np.ascontiguousarray(one.vector_D))
    return b'"%s"' % base64.b64encode(one.vector_D.astype("<f4").tobytes())
