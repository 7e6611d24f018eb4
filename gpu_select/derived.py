"""Modules that keep what follows from their tensors: packed copies, indexes, recordings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

from torch import Tensor, nn

__all__ = ["Deriving"]


class Deriving(nn.Module):
    """Forgets what it derived when its tensors move or are loaded anew, and takes none of it into a copy.

    Attributes:
        derived: names of the attributes that hold it; each is None until it is needed.
    """

    derived: ClassVar[tuple[str, ...]] = ()

    def forget(self) -> None:
        """Derive everything anew where it is next needed: for tensors that were written to in place."""
        for name in self.derived:
            setattr(self, name, None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.forget()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self.forget()
        super()._load_from_state_dict(*arguments)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, **dict.fromkeys(self.derived)}
