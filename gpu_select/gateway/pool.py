"""Connections to all endpoints, and how many requests may be under way on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from types import SimpleNamespace

import aiohttp

from gpu_select.config.gateway import UpstreamConfig

__all__ = ["Pool", "PoolFullError"]

_KEEPALIVE_S = 15.0
_DNS_S = 30


class PoolFullError(Exception):
    """As many requests are under way as may be."""


class Pool:
    """The connections, for one event loop. Bodies stay compressed as they come; no cookies, no proxies.

    Nobody waits for a connection: an endpoint that hangs would make those wait that ask another one, and time spent
    waiting here would look like its fault.

    Attributes:
        session: sends requests. The context of a request, a namespace, has its `reused` set when it goes out on a
            connection that was used before.
    """

    def __init__(self) -> None:
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=_DNS_S, keepalive_timeout=_KEEPALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("user-agent", "accept", "accept-encoding"),
            trace_configs=[trace],
        )
        self._n_taken: Counter[Hashable] = Counter()
        self._n_all = 0

    def take(self, endpoint: Hashable, config: UpstreamConfig) -> Callable[[], None]:
        """A place for one request, until what is returned is called; calling it again changes nothing.

        Args:
            endpoint: where the request goes.
            config: how many there are.

        Raises:
            PoolFullError: there is no place left, for this endpoint or at all.
        """
        if self._n_all >= config.max_connections or self._n_taken[endpoint] >= config.max_connections_per_endpoint:
            raise PoolFullError
        self._n_all += 1
        self._n_taken[endpoint] += 1
        is_taken = True

        def free() -> None:
            nonlocal is_taken
            if not is_taken:
                return
            is_taken = False
            self._n_all -= 1
            self._n_taken[endpoint] -= 1
            if not self._n_taken[endpoint]:
                del self._n_taken[endpoint]  # a reload may have replaced it

        return free

    async def close(self) -> None:
        """Close all connections."""
        await self.session.close()


async def _note_reuse(
    session: aiohttp.ClientSession, context: SimpleNamespace, parameters: aiohttp.TraceConnectionReuseconnParams
) -> None:
    context.trace_request_ctx.reused = True
