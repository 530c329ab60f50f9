"""Owns the answer to one connection: who calls, what is wanted, and how it ends."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from sandyard.errors import SandboxError, ServerError
from sandyard.finishing import finished
from sandyard.server.answers import Server, answer
from sandyard.server.call import ServerCall
from sandyard.server.connection import Connection, check_versions, own_hello
from sandyard.server.framing import Channel, FrameError
from sandyard.server.limits import FAREWELL_S, HANDSHAKE_TIMEOUT_S
from sandyard.server.messages import Hello, Request, Shut, parse_request
from sandyard.server.outcomes import Done, Failed, failure_of
from sandyard.server.wording import Message

__all__ = ["serve_connection"]

_logger = logging.getLogger("sandyard.server")


async def serve_connection(connection: Connection, server: Server) -> None:
    """Answer one call, whatever comes; the connection is closed by whoever opened it.

    A caller that hangs up ends its call: what is under way is cancelled, as far as it lives no longer
    than the call.
    """
    try:
        last = await _answer_call(connection, server)
        await connection.say(last)
        await connection.finish(FAREWELL_S)
    except (ConnectionError, TimeoutError):
        return  # there is nobody to tell
    except FrameError as error:  # an answer that is too large to be sent
        with suppress(ConnectionError, FrameError):
            await connection.say(_senseless(f"the answer can't be sent: {error}"))
            await connection.finish(FAREWELL_S)


async def _answer_call(connection: Connection, server: Server) -> Message:
    """Hear the request, and answer it; returns what is said last.

    Raises:
        ConnectionError: the caller has hung up.
        TimeoutError: it says nothing.
    """
    try:
        request = await _heard_request(connection)
        if isinstance(request, Failed):
            return request
        return await _attended(connection, request, server)
    except SandboxError as error:
        return failure_of(error)
    except FrameError as error:
        return _senseless(f"what was sent makes no sense: {error}")
    except (ConnectionError, TimeoutError):
        raise
    except Exception:  # the border of a server's handler
        _logger.exception("a call failed")
        return _senseless("an error of the server's own; its log tells more")


async def _heard_request(connection: Connection) -> Request | Failed:
    own = await own_hello()
    caller = await connection.meet(own)
    refusal = _other_version(own, caller)
    async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
        frame = await connection.receive()
    if frame is None:
        raise ConnectionResetError("the caller has hung up")
    if frame.channel is not Channel.CONTROL:
        raise FrameError("bytes before the request")
    if refusal is not None:
        # To be ended is the one thing that any version may ask of any other.
        if frame.payload == Shut().model_dump_json().encode():
            return Shut()
        return refusal
    return parse_request(frame.payload)


def _other_version(own: Hello, caller: Hello) -> Failed | None:
    try:
        check_versions(caller, own)
    except ServerError as error:
        return failure_of(error)
    return None


async def _attended(connection: Connection, request: Request, server: Server) -> Message:
    """Answer, and hear the caller meanwhile: whichever ends first ends the other."""
    call = ServerCall(connection)
    answering = asyncio.ensure_future(answer(request, call, server))
    listening = asyncio.ensure_future(call.listen())
    try:
        await asyncio.wait((answering, listening), return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
    finally:
        # Each is seen to its end, so that nothing of the call is left when the connection closes.
        await finished(_ended(answering, listening))
    listening.result()  # raises what made no sense
    if call.left:
        return Done()  # all that it began has ended
    raise ConnectionResetError("the caller has hung up")


async def _ended(*tasks: asyncio.Future[Message] | asyncio.Future[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, so that it is not reported as lost


def _senseless(message: str) -> Failed:
    return failure_of(ServerError(message, reason="protocol", retryable=False))
