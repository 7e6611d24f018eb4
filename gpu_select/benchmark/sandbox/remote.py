"""The examiner's side of the candidate's objects: the tests use them as if they were there."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from typing import Any

from gpu_select.benchmark.sandbox.codec import CodecError, Handle, decode, encode, read_frame, write_frame

__all__ = ["Connection", "Remote"]


class Connection:
    """Requests to the candidate, whose replies are values and no more."""

    def __init__(self, read_fd: int, write_fd: int, on_loss: Callable[[], None]) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._on_loss = on_loss
        self._remotes: dict[int, Remote] = {}
        self._callbacks: list[Callable[..., Any]] = []

    def request(self, *request: Any) -> Any:
        """What the candidate replies.

        Raises:
            Exception: of the built-in type that was raised there, or the nearest one.
        """
        reply = self._exchange(request)
        while reply[0] == "callback":
            reply = self._exchange(self._called_back(*reply[1:]))
        if reply[0] == "error":
            raise _error(*reply[1:])
        _, value, *changed = reply
        if changed and request[0] == "call":
            for i, new in changed[0].items():
                _change(request[2][i], new)
        return value

    def _exchange(self, message: tuple[Any, ...]) -> tuple[Any, ...]:
        data = encode(message, self._handle)
        try:
            write_frame(self._write_fd, data)
            reply = decode(read_frame(self._read_fd), self._object)
        except (CodecError, OSError):
            reply = None
        if not (isinstance(reply, tuple) and len(reply) > 1 and reply[0] in ("ok", "error", "callback")):
            self._on_loss()
            raise CodecError("the candidate is lost")
        return reply

    def _called_back(self, number: int, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[str, Any]:
        try:
            return ("ok", self._callbacks[-number - 1](*args, **keywords))
        except Exception as error:
            return ("error", f"{type(error).__name__}: {error}"[:1000])

    def _handle(self, value: Any) -> Handle:
        if isinstance(value, Remote):
            return Handle(value._number)
        if callable(value):
            self._callbacks.append(value)
            return Handle(-len(self._callbacks))
        raise CodecError(f"a {type(value).__name__} cannot be sent")

    def _object(self, number: int) -> Remote:
        return self._remotes.setdefault(number, Remote(self, number))


def _error(names: Any = (), text: Any = "", *_: Any) -> Exception:
    for name in names if isinstance(names, list) else ():
        kind = getattr(builtins, name, None) if isinstance(name, str) else None
        if isinstance(kind, type) and issubclass(kind, Exception) and kind is not StopAsyncIteration:
            try:
                return kind(text)
            except TypeError:  # UnicodeDecodeError wants more
                continue
    return RuntimeError(text)


def _change(target: Any, new: Any) -> None:
    """Give an argument the content that the call left in its copy."""
    if type(target) is not type(new):
        return
    if isinstance(target, (list, bytearray)):
        target[:] = new
    elif isinstance(target, (dict, set)):
        target.clear()
        target.update(new)


class Remote:
    """An object of the candidate. With a value of the tests it is never equal, and never in order.

    The operators with values are left out on purpose: they would show the candidate what the tests expect.
    """

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection = connection
        self._number = number

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Call it there; lists, dicts and sets among `args` get the content that the call leaves them with."""
        return self._connection.request("call", self, args, keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__") and name not in ("__name__", "__doc__", "__dict__"):
            raise AttributeError(name)  # copy, isinstance and others ask for these: here they mean this object
        return self._connection.request("get", self, name)

    def __getitem__(self, key: Any) -> Any:
        return self._connection.request("item", self, key)

    def __iter__(self) -> Iterator[Any]:
        return self._connection.request("iterate", self)  # type: ignore[no-any-return]

    def __next__(self) -> Any:
        return self._connection.request("apply", "next", self)

    def __len__(self) -> int:
        return self._expect(int, "len")  # type: ignore[no-any-return]

    def __bool__(self) -> bool:
        return self._expect(bool, "bool")  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return self._expect(str, "str")  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return self._expect(str, "repr")  # type: ignore[no-any-return]

    def __int__(self) -> int:
        return self._expect(int, "int")  # type: ignore[no-any-return]

    def __float__(self) -> float:
        return self._expect(float, "float")  # type: ignore[no-any-return]

    def __hash__(self) -> int:
        return hash(self._number)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Remote) and self._compare("eq", other)

    def __lt__(self, other: Remote) -> bool:
        return self._compare("lt", other)

    def __le__(self, other: Remote) -> bool:
        return self._compare("le", other)

    def __gt__(self, other: Remote) -> bool:
        return self._compare("gt", other)

    def __ge__(self, other: Remote) -> bool:
        return self._compare("ge", other)

    def _compare(self, comparison: str, other: object) -> bool:
        if not isinstance(other, Remote):
            raise TypeError("an object of the answer and a value have no order")
        return bool(self._connection.request("compare", comparison, self, other))

    def _expect(self, kind: type, function: str) -> Any:
        value = self._connection.request("apply", function, self)
        if type(value) is not kind:
            raise TypeError(f"{function}() gave a {type(value).__name__}")
        return value
