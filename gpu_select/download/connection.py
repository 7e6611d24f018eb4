"""Requests to a hub: bounded answers, and what goes wrong in one line. The only user of huggingface_hub here.

Its session, token, endpoint and addresses are used, and so HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE,
HF_HUB_DOWNLOAD_TIMEOUT and proxies mean what they mean elsewhere. Its `hf_hub_download` is not: recent versions write
under another name in every run and remove it when they fail, so that an interrupted download begins again.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gpu_select import __version__, jsonio
from gpu_select.errors import ConfigError, HubError, brief

__all__ = ["Answer", "Connection", "RefusedError", "UnreachableError"]

_MAX_DOCUMENT_BYTES = 64 << 20
_TEMPORARY = (408, 429, 500, 502, 503, 504)
_PASSWORD = re.compile(r"//[^/]*@")
_TOKEN = re.compile(r"Bearer [!-~]+")


class UnreachableError(HubError):
    """No answer, or one that broke off."""

    def __init__(self, endpoint: str, reason: str) -> None:
        super().__init__(
            f"{endpoint} cannot be reached ({reason}): check the network, HF_ENDPOINT and the proxy's settings"
        )
        self.reason = reason


class RefusedError(HubError):
    """An answer that is a refusal."""

    def __init__(self, host: str, status: int, code: str, message: str) -> None:
        super().__init__(f"{host} answers {status}{f' ({message})' if message else ''}: try again later")
        self.host = host
        self.status = status
        self.code = code
        """RepoNotFound, RevisionNotFound, EntryNotFound or GatedRepo, where the hub says which."""
        self.message = message

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may be answered later."""
        return self.status in _TEMPORARY


@dataclass(frozen=True)
class Answer:
    """An answer that is no refusal, while it arrives."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]
    """Raises `UnreachableError` where the connection breaks."""


class Connection:
    """A hub, as the environment and the user name it.

    Attributes:
        endpoint: its address.
        shown: the same for texts, without a password.
        has_token: whether a token goes with the requests. It is sent to the hub's own origin alone, not to where that
            redirects, and stands in no text.
    """

    def __init__(self, token: str | None = None) -> None:
        """Find out where the hub is and who asks.

        Args:
            token: by default what HF_TOKEN or an earlier `hf auth login` says.

        Raises:
            ConfigError: the token is none.
        """
        from huggingface_hub import constants

        self.endpoint = constants.ENDPOINT.rstrip("/")
        self.shown = _PASSWORD.sub("//", self.endpoint)
        headers: dict[str, str] = _utils().build_hf_headers(
            token=token, library_name="gpu_select", library_version=__version__
        )
        authorization = headers.get("authorization", "")
        self.has_token = bool(authorization)
        if self.has_token and not _TOKEN.fullmatch(authorization):
            # a header cannot hold it, and the client's own error would print it
            raise ConfigError("token", _Hidden(), "letters, digits and punctuation without spaces, such as hf_...")
        # offsets are those of the file, and not of a packed form of it
        self._headers = headers | {"accept-encoding": "identity"}
        self._timeout_s = constants.HF_HUB_DOWNLOAD_TIMEOUT

    @contextlib.contextmanager
    def get(self, url: str, *, start: int = 0) -> Iterator[Answer]:
        """Ask for what stands at an address.

        Args:
            url: absolute.
            start: leave out so many bytes, if the server can.

        Raises:
            UnreachableError: there is no answer.
            RefusedError: the status is 400 or more.
        """
        headers = self._headers | ({"range": f"bytes={start}-"} if start else {})
        with contextlib.ExitStack() as stack:
            with self._translated():
                stream = _utils().get_session().stream("GET", url, headers=headers, timeout=self._timeout_s)
                response: Any = stack.enter_context(stream)
            if response.status_code >= 400:
                host = urlsplit(str(response.url)).netloc.rpartition("@")[2]
                code, message = (response.headers.get(f"x-error-{part}", "") for part in ("code", "message"))
                raise RefusedError(host, response.status_code, code, message and brief(message, 200))
            yield Answer(response.status_code, response.headers, self._chunks(response))

    def get_json(self, path: str) -> dict[str, Any]:
        """The JSON object at a path of the hub's programming interface.

        Raises:
            UnreachableError: there is no answer.
            RefusedError: the status is 400 or more.
            HubError: the answer is no JSON object of at most 64 MiB.
        """
        data = bytearray()
        with self.get(f"{self.endpoint}/api/{path}") as answer:
            for chunk in answer.chunks:
                data += chunk
                if len(data) > _MAX_DOCUMENT_BYTES:
                    raise self.no_hub(f"more than {_MAX_DOCUMENT_BYTES >> 20} MiB")
        try:
            document = jsonio.loads(bytes(data))
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise self.no_hub(brief(bytes(data[:60])))
        return document

    def no_hub(self, got: str) -> HubError:
        """The error for an answer that no hub gives."""
        return HubError(f"{self.shown}: expected the answer of a hub, got {got}: check HF_ENDPOINT")

    def _chunks(self, response: Any) -> Iterator[bytes]:
        with self._translated():
            yield from response.iter_bytes()  # as they come: a step of a given size would lose a cut one

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Around calls of the HTTP client alone: which one it is, and so what it raises, depends on the version."""
        from huggingface_hub.errors import OfflineModeIsEnabled

        try:
            yield
        except OfflineModeIsEnabled as error:
            raise HubError(
                "HF_HUB_OFFLINE is set, so nothing is downloaded: unset it, or use files that are here already"
            ) from error
        except Exception as error:
            text = _PASSWORD.sub("//", " ".join(str(error).split()))
            raise UnreachableError(self.shown, brief(text, 200) if text else type(error).__name__) from error


def _utils() -> Any:
    """The library's documented helpers, which it exports in a way that type checkers do not see."""
    from huggingface_hub import utils

    return utils


class _Hidden:
    def __repr__(self) -> str:
        return "something else (not shown)"
