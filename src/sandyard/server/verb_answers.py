"""Answers to calls of methods: the call is made, and what it gives is sent as a value or as bytes."""

from __future__ import annotations

import asyncio
import inspect
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Final, cast

from pydantic import JsonValue

from sandyard.errors import (
    ArgumentError,
    ResourceLimitError,
    SandboxError,
    WorkspaceArchiveReadError,
)
from sandyard.finishing import in_thread
from sandyard.limits import COPY_CHUNK_BYTES
from sandyard.process.stream import StreamName
from sandyard.server.call import CallInput, ServerCall
from sandyard.server.feeding import FedFile
from sandyard.server.limits import ANSWER_BYTES, FRAME_DATA_BYTES, GATHERED_BYTES
from sandyard.server.messages import CallVerb
from sandyard.server.outcomes import Returned
from sandyard.server.verbs import VerbShape, find_shape
from sandyard.server.wording import Message
from sandyard.session import UnixLocalSandboxSession

__all__ = ["answer_verb"]

_WHOLE: Final = frozenset({"append"})
"""Methods that take contents as bytes, and no stream."""

_OUT: Final[StreamName] = "stdout"


async def answer_verb(
    request: CallVerb, call: ServerCall, session: UnixLocalSandboxSession
) -> Message:
    """Call a method of a session, and send what it gives.

    Raises:
        ArgumentError, ArgumentTypeError: there is no such method to be asked for, or an argument is odd.
        SandboxError: what the method raises.
        ConnectionError: the caller has hung up.
    """
    shape = find_shape(request.verb)
    words, options = shape.unpack_arguments(request.arguments)
    if shape.fed:
        options["data"] = await _contents(shape, call)
    method = cast("Callable[..., object]", getattr(session, shape.name))
    given = method(*words, **options)
    if shape.gives == "pieces":
        async with aclosing(cast("AsyncGenerator[bytes, None]", given)) as pieces:
            await _pass_on(pieces, call)
        return Returned()
    result = await given if inspect.isawaitable(given) else given
    if shape.gives == "file":
        return await _pass_file(result, call, shape)
    return await _told(result, call, shape)


async def _contents(shape: VerbShape, call: ServerCall) -> FedFile | bytes:
    await call.input.open()
    if shape.name in _WHOLE:
        return await _gathered(call.input, shape)
    return FedFile(call.input, asyncio.get_running_loop())


async def _gathered(source: CallInput, shape: VerbShape) -> bytes:
    found = bytearray()
    async for data in source:
        found += data
        if len(found) > GATHERED_BYTES:
            raise ArgumentError(
                f"{shape.name} takes at most {GATHERED_BYTES} bytes from another process; give them "
                "in several calls",
                op=shape.op,
                argument="data",
                value=None,
            )
    return bytes(found)


async def _pass_on(pieces: AsyncIterator[bytes], call: ServerCall) -> None:
    async for data in pieces:
        await call.put(_OUT, data)


async def _pass_file(result: object, call: ServerCall, shape: VerbShape) -> Message:
    """Send what a file gives; of an archive the report follows, which it has at its end."""
    if isinstance(result, AsyncIterator):  # an archive that is made while it is read
        async with aclosing(cast("AsyncGenerator[bytes, None]", result)) as pieces:
            await _pass_on(pieces, call)
    else:
        file = cast(io.BufferedIOBase, result)
        try:
            while data := await in_thread(_piece, file, shape):
                await call.put(_OUT, data)
        finally:
            await in_thread(file.close)
    return Returned(value=shape.pack_result(getattr(result, "report", None)))


def _piece(file: io.BufferedIOBase, shape: VerbShape) -> bytes:
    try:
        return file.read(COPY_CHUNK_BYTES)
    except SandboxError:
        raise
    except OSError as error:
        raise WorkspaceArchiveReadError(path=shape.name, cause=error) from error


async def _told(result: object, call: ServerCall, shape: VerbShape) -> Message:
    """A result: in one message, or as JSON on the output channel where it is large."""
    if result is None or isinstance(result, bool | int):
        return Returned(value=shape.pack_result(result))
    value, text = await in_thread(_packed, result, shape)  # a listing takes its time
    if len(text) <= FRAME_DATA_BYTES:
        return Returned(value=value)
    if len(text) > ANSWER_BYTES:
        raise ResourceLimitError(
            f"the answer has {len(text)} bytes, and may have {ANSWER_BYTES}; ask for less at once",
            limit="answer",
            value=ANSWER_BYTES,
            unit="bytes",
            op=shape.op,
            retryable=False,
        )
    await call.put(_OUT, text)
    return Returned(before=True)


def _packed(result: object, shape: VerbShape) -> tuple[JsonValue, bytes]:
    """A result as it travels, and as JSON; a long one part by part, so that the loop has its turns."""
    value = shape.pack_result(result)
    text = (
        f"[{', '.join(map(json.dumps, value))}]" if isinstance(value, list) else json.dumps(value)
    )
    return value, text.encode()
