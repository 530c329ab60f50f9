"""Tells apart that a part of this library could not be loaded from all else that fails meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from functools import wraps
from types import TracebackType
from typing import ParamSpec, TypeVar

from sandyard.errors import LibraryLoadError, OpName

__all__ = ["UNLOADED", "as_told", "loading"]

P = ParamSpec("P")
T = TypeVar("T")
Verb = Callable[P, Coroutine[None, None, T]]

UNLOADED = (ImportError, OSError, MemoryError)
"""What an import statement raises where a file can't be found, opened or read."""

_PACKAGE = "sandyard"
_LOADER = "importlib._bootstrap"


def as_told(error: BaseException, op: OpName) -> BaseException:
    """The error itself; or, where one of our own imports made it, a typed one.

    Rarely used parts are imported when they are asked for, which needs descriptors and a disk that
    answers. Imports of the caller's own code that fails beneath a verb stay what they are.
    """
    if not isinstance(error, UNLOADED) or not _is_ours(error):
        return error
    return LibraryLoadError(op=op, cause=error)


def loading(op: OpName) -> Callable[[Verb[P, T]], Verb[P, T]]:
    """Make a coroutine function say so where a part of the library could not be loaded."""

    def decorate(verb: Verb[P, T]) -> Verb[P, T]:
        @wraps(verb)
        async def told(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return await verb(*args, **kwargs)
            except UNLOADED as error:
                raise as_told(error, op)  # noqa: B904  # it has its cause

        return told

    return decorate


def _is_ours(error: BaseException) -> bool:
    """Whether nothing but modules being loaded lies between code of ours and the error.

    The interpreter leaves its loader out of the traceback of an ImportError, and of no other error.
    """
    below: list[tuple[str, str]] | None = None
    for module, function in _frames(error.__traceback__):
        if module.partition(".")[0] == _PACKAGE and function != "<module>":
            below = []
        elif below is not None:
            below.append((module, function))
    if below is None:
        return False
    loader = [module.startswith(_LOADER) for module, _ in below]
    bodies = [function == "<module>" and module != "__main__" for module, function in below]
    if not all(one or other for one, other in zip(loader, bodies, strict=True)):
        return False
    return isinstance(error, ImportError) or any(loader)


def _frames(traceback: TracebackType | None) -> Iterator[tuple[str, str]]:
    while traceback is not None:
        frame = traceback.tb_frame
        yield str(frame.f_globals.get("__name__")), frame.f_code.co_name
        traceback = traceback.tb_next
