"""API keys: compared by digest, in the same time whether they are right, nearly right or wrong."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable

from gpu_select.gateway.errors import AuthenticationError, PermissionError

__all__ = ["KeyRing", "is_local"]

_MOST_CHARACTERS = 4096


class KeyRing:
    """The keys that open the gateway.

    Args:
        api_keys: for everything but /admin; none: no key is needed.
        admin_keys: for /admin; none: the `api_keys`; without those, only clients on the same machine.
    """

    def __init__(self, api_keys: Iterable[str], admin_keys: Iterable[str]) -> None:
        self._api = [_digest(key) for key in api_keys]
        self._admin = [_digest(key) for key in admin_keys]

    @property
    def is_open(self) -> bool:
        """Whether everybody is served."""
        return not self._api

    def check_client(self, authorization: str | None) -> None:
        """Let a client pass, or not, by its header Authorization.

        Raises:
            AuthenticationError: no key, or a wrong one.
        """
        if self._api:
            _check(self._api, authorization)

    def check_admin(self, authorization: str | None, peer: str | None) -> None:
        """The same for /admin.

        Args:
            authorization: the header Authorization.
            peer: the client's address.

        Raises:
            AuthenticationError: no key, or a wrong one.
            PermissionError: there are no keys, and the client is on another machine.
        """
        if keys := self._admin or self._api:
            _check(keys, authorization)
        elif not is_local(peer):
            raise PermissionError(
                "/admin is for this machine only, as the configuration has neither admin_keys nor api_keys"
            )


def _check(keys: list[bytes], authorization: str | None) -> None:
    if authorization is None:
        raise AuthenticationError("No API key: expected the header Authorization: Bearer KEY")
    scheme, _, key = authorization.partition(" ")
    given = _digest(key.strip()[:_MOST_CHARACTERS])
    # all of them, so that the time tells nothing
    matches = [hmac.compare_digest(given, known) for known in keys]
    if scheme.lower() != "bearer" or not any(matches):
        raise AuthenticationError("Incorrect API key")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def is_local(peer: str | None) -> bool:
    """Whether an address is one of the machine's own, which no other machine reaches."""
    try:
        return peer is not None and ipaddress.ip_address(peer.partition("%")[0]).is_loopback
    except ValueError:
        return False
