"""Methods of a session that one message carries: arguments out, contents out or in, the result back."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from functools import wraps
from typing import BinaryIO, Self, TypeVar, cast

from pydantic import JsonValue

from sandyard.archive.report import ArchiveReport
from sandyard.errors import (
    SandboxError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceWriteTypeError,
    shown,
)
from sandyard.finishing import in_thread
from sandyard.limits import COPY_CHUNK_BYTES
from sandyard.server.calling import Connect, OutgoingCall, opened_call, pumping, senseless
from sandyard.server.framing import Frame, FrameError
from sandyard.server.limits import ANSWER_BYTES
from sandyard.server.messages import CallVerb
from sandyard.server.outcomes import Returned
from sandyard.server.values import ShapeError
from sandyard.server.verbs import VERBS, VerbShape

__all__ = ["Carrier", "Contents", "FetchedFile", "carried", "contents_of"]

F = TypeVar("F", bound=Callable[..., object])


class FetchedFile(io.BufferedReader):
    """A file of a session, or an archive of it, as it was fetched: a file of this machine without a name.

    Attributes:
        report: of an archive, what was saved and what could not be; else None.
    """

    report: ArchiveReport | None = None


class Carrier:
    """A session of another process, as far as its methods are carried.

    Attributes:
        which: its name, its id, or the beginning of that.
    """

    def __init__(self, connect: Connect, which: str) -> None:
        """Name a session."""
        self._connect = connect
        self.which = which

    async def call(self, name: str, **given: object) -> object:
        """Call a method by its name.

        Raises:
            SandboxError: what the method raises.
            ServerError: the server can't be asked.
        """
        return await self.carry(VERBS[name], given)

    async def carry(self, shape: VerbShape, given: Mapping[str, object]) -> object:
        """Call a method, and give what it gives.

        Raises:
            SandboxError: what the method raises.
            ServerError: the server can't be asked.
        """
        request = self.request(shape.name, given)
        if shape.fed:
            return await self._feed(shape, request, given)
        async with opened_call(self._connect, request) as call:
            if shape.gives == "file":
                return await _fetched(call, shape, _place(given))
            return await _result(call, shape)

    async def _feed(
        self, shape: VerbShape, request: CallVerb, given: Mapping[str, object]
    ) -> object:
        contents = contents_of(given.get("data"), _place(given))
        try:
            async with (
                opened_call(self._connect, request) as call,
                pumping(call, contents),
            ):
                return await _result(call, shape)
        except OSError as error:
            if contents.failure is error and not isinstance(error, SandboxError):
                raise _unreadable(_place(given), error) from error
            raise

    async def carry_pieces(
        self, shape: VerbShape, given: Mapping[str, object]
    ) -> AsyncGenerator[bytes, None]:
        """Call a method that gives bytes, piece by piece; it goes on when they are taken.

        Raises:
            SandboxError: what the method raises.
            ServerError: the server can't be asked.
        """
        async with opened_call(self._connect, self.request(shape.name, given)) as call:
            while isinstance(said := await call.next(), Frame):
                yield said.payload
            if not isinstance(said, Returned):
                raise senseless(FrameError("a file without an end"))

    def request(self, name: str, given: Mapping[str, object]) -> CallVerb:
        """The message that calls a method.

        Raises:
            ArgumentTypeError, UnsupportedOperationError: an argument can't be sent.
        """
        arguments = VERBS[name].pack_arguments(given, type(self).__name__)
        return CallVerb(session=self.which, verb=name, arguments=arguments)


def carried(verb: F) -> F:
    """A method of the contract that is called in the process that holds the session."""
    shape = VERBS[verb.__name__]

    @wraps(verb)
    async def asked(session: Carrier, /, *args: object, **kwargs: object) -> object:
        return await session.carry(shape, shape.bound(args, kwargs))

    @wraps(verb)
    async def pieces(
        session: Carrier, /, *args: object, **kwargs: object
    ) -> AsyncGenerator[bytes, None]:
        async with aclosing(session.carry_pieces(shape, shape.bound(args, kwargs))) as found:
            async for data in found:
                yield data

    made = pieces if shape.gives == "pieces" else asked
    made.__dict__.pop("__isabstractmethod__", None)  # which goes with the rest of the original
    return cast(F, made)


class Contents:
    """What a caller gives as contents, to be iterated once for its pieces.

    Attributes:
        failure: what the source raised; None while all is well.
    """

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self.failure: Exception | None = None

    def __aiter__(self) -> Self:
        """Iterate over the pieces."""
        return self

    async def __anext__(self) -> bytes:
        """Ask for the next piece.

        Raises:
            Exception: what the source raises.
        """
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.failure = error
            raise


def contents_of(data: object, path: str) -> Contents:
    """What a caller gives as contents, piece by piece.

    Args:
        data: bytes, a binary file, or an asynchronous iterable of bytes.
        path: what is written, for errors.

    Raises:
        WorkspaceWriteTypeError: it is text or something else.
    """
    if isinstance(data, bytes | bytearray | memoryview):
        return Contents(_parts(memoryview(memoryview(data).tobytes())))
    if isinstance(data, AsyncIterable):
        return Contents(_checked(data, path))
    if isinstance(data, io.TextIOBase) or not callable(getattr(data, "read", None)):
        raise WorkspaceWriteTypeError(path=path, actual_type=type(data).__name__)
    return Contents(_read(cast(BinaryIO, data), path))


async def _parts(data: memoryview) -> AsyncIterator[bytes]:
    for start in range(0, len(data), COPY_CHUNK_BYTES):
        yield bytes(data[start : start + COPY_CHUNK_BYTES])


async def _checked(data: AsyncIterable[object], path: str) -> AsyncIterator[bytes]:
    async for piece in data:
        yield _piece(piece, path)


async def _read(file: BinaryIO, path: str) -> AsyncIterator[bytes]:
    while piece := await in_thread(file.read, COPY_CHUNK_BYTES):
        yield _piece(piece, path)


def _piece(piece: object, path: str) -> bytes:
    if not isinstance(piece, bytes | bytearray | memoryview):
        kind = f"a stream of {type(piece).__name__}"
        raise WorkspaceWriteTypeError(path=path, actual_type=kind)
    return bytes(piece)


def _unreadable(path: str, error: OSError) -> WorkspaceArchiveWriteError:
    return WorkspaceArchiveWriteError(
        path=path,
        message=f"{shown(path)} could not be written, because its source could not be read: {error}; "
        "it is as it was",
        context={"reason": "source_unreadable"},
        cause=error,
    )


def _place(given: Mapping[str, object]) -> str:
    return str(given.get("path", "."))


async def _result(call: OutgoingCall, shape: VerbShape) -> object:
    """What a method gave: in one message, or as JSON before it."""
    found = bytearray()
    while isinstance(said := await call.next(), Frame):
        found += said.payload
        if len(found) > ANSWER_BYTES:
            raise senseless(FrameError("an answer without an end"))
    if not isinstance(said, Returned):
        raise senseless(FrameError(f"another answer than that of {shape.name}"))
    try:
        if said.before:
            return await in_thread(_unpacked, found, shape)
        if isinstance(said.value, list | dict):
            return await in_thread(shape.unpack_result, said.value)
        return shape.unpack_result(said.value)
    except (ShapeError, json.JSONDecodeError) as error:
        raise senseless(FrameError(f"{shape.name} gives no such thing: {error}")) from error


def _unpacked(text: bytearray, shape: VerbShape) -> object:
    return shape.unpack_result(cast(JsonValue, json.loads(text)))


async def _fetched(call: OutgoingCall, shape: VerbShape, path: str) -> FetchedFile:
    """Keep what comes in a file without a name, which the caller reads at any pace, or never."""
    try:
        file = await in_thread(_nameless)
        try:
            while isinstance(said := await call.next(), Frame):
                await in_thread(_add, file, said.payload)
            if not isinstance(said, Returned):
                raise senseless(FrameError("a file without an end"))
            await in_thread(file.seek, 0)
            fetched = FetchedFile(file)
            fetched.report = cast("ArchiveReport | None", shape.unpack_result(said.value))
        except BaseException:
            file.close()
            raise
    except ShapeError as error:
        raise senseless(FrameError(f"{shape.name} gives no such thing: {error}")) from error
    except SandboxError:  # of which some are OSErrors
        raise
    except OSError as error:
        raise WorkspaceArchiveReadError(
            path=path,
            message=f"{shown(path)} was read, and can't be kept in {shown(tempfile.gettempdir())}: "
            f"{error.strerror}; set TMPDIR to another directory, or read it by read_chunks",
            context={"reason": "no_room"},
            cause=error,
        ) from error
    return fetched


def _nameless() -> io.FileIO:
    return tempfile.TemporaryFile(buffering=0)  # the caller closes it


def _add(file: io.FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
