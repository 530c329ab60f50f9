"""Owns the caller's end of one call: the request, what comes back, and the input that it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from sandyard.errors import ArgumentError, ServerError, shown
from sandyard.finishing import finished
from sandyard.limits import COPY_CHUNK_BYTES
from sandyard.server.connection import Connection, check_versions, own_hello
from sandyard.server.framing import Channel, Frame, FrameError
from sandyard.server.limits import CONNECT_TRIES, LEAVE_S
from sandyard.server.messages import Credit, InputEnd, Leave, Missed, Started
from sandyard.server.outcomes import Failed, FromServer, error_of, parse_from_server
from sandyard.server.wording import Message

__all__ = ["CallerInput", "Connect", "OutgoingCall", "asked", "opened_call", "pumping", "senseless"]

Connect = Callable[[], Awaitable[Connection]]
"""Opens a connection to a server.

Raises:
    ServerError: there is none.
"""

_Wanted = TypeVar("_Wanted", bound=Message)


class CallerInput:
    """What is sent to the server on the input channel: no more than it has given credit for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._credit = 0
        self._news = asyncio.Event()

    def allow(self, size: int) -> None:
        """Hear that so many more bytes may be sent."""
        self._credit += size
        self._news.set()

    async def send(self, data: bytes | memoryview) -> None:
        """Send all of some bytes, as the server takes them.

        Raises:
            ConnectionError: the server has hung up.
        """
        rest = memoryview(data).cast("B")
        while rest:
            await self.wait()
            part = rest[: self._credit]
            self._credit -= len(part)
            await self._connection.send(Channel.INPUT, bytes(part))
            rest = rest[len(part) :]

    async def wait(self) -> None:
        """Wait until something may be sent."""
        while not self._credit:
            self._news.clear()
            await self._news.wait()

    async def end(self) -> None:
        """Say that nothing more comes.

        Raises:
            ConnectionError: the server has hung up.
        """
        await self._connection.say(InputEnd())

    async def pump(self, source: AsyncIterable[bytes]) -> None:
        """Send what a source gives, asking it only when there is room; a server that hangs up ends it.

        Raises:
            Exception: what the source raises.
        """
        chunks = aiter(source)
        await self.wait()
        async for data in chunks:
            try:
                await self.send(data)
            except ConnectionError:  # not the source's, which may be a connection as well
                return
            await self.wait()
        with suppress(ConnectionError):
            await self.end()


class OutgoingCall:
    """One call that is under way; iterate it for what the server says, until it is over.

    Attributes:
        input: what is sent to the server.
        over: whether the server has said its last word, or gone.
    """

    def __init__(self, connection: Connection) -> None:
        """Take over a connection whose request was sent."""
        self.input = CallerInput(connection)
        self.over = False
        self._connection = connection

    async def say(self, message: Message) -> None:
        """Tell the server something; one that has answered is left alone."""
        try:
            await self._connection.say(message)
        except ConnectionError:
            return

    async def next(self) -> FromServer | Frame:
        """Wait for a message, or for bytes of a channel of output.

        Raises:
            SandboxError: the call has failed.
            ServerError: the server has gone, or what it says makes no sense.
        """
        while True:
            try:
                frame = await self._connection.receive()
                if frame is None:
                    self.over = True
                    raise _lost()
                if frame.channel in (Channel.OUTPUT, Channel.ERRORS):
                    return frame
                if frame.channel is Channel.INPUT:
                    raise FrameError("a server sends no input")
                said = parse_from_server(frame.payload)
            except FrameError as error:
                raise senseless(error) from error
            if isinstance(said, Credit):
                self.input.allow(said.bytes)
                continue
            self.over = not isinstance(said, Started | Missed)
            if isinstance(said, Failed):
                raise error_of(said)
            return said

    async def leave(self) -> None:
        """Want no more of the call, and wait until what it began has ended, if the server is well."""
        with suppress(ConnectionError, FrameError, TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await self._connection.say(Leave())
                while await self._connection.receive() is not None:
                    pass
        self.over = True

    async def result(self, wanted: type[_Wanted]) -> _Wanted:
        """Wait for the message that ends the call.

        Raises:
            SandboxError: the call has failed.
        """
        said = await self.next()
        if not isinstance(said, wanted):
            raise senseless(FrameError(f"another answer than {wanted.__name__}"))
        return said


@asynccontextmanager
async def opened_call(connect: Connect, request: Message) -> AsyncIterator[OutgoingCall]:
    """Hold a call for the length of a block; leaving it ends what the call began.

    Raises:
        ServerError: there is no server, or it is of another version.
        ArgumentError: the request can't be written down, or is too large.
        SandboxError: the server refuses the call.
    """
    async with await _met(connect) as connection:
        try:
            await connection.say(request)
        except ConnectionError as error:
            raise _lost() from error
        except ValueError as error:  # as JSON it is too large, or a value has no word in it
            raise _unsendable(request, error) from error
        call = OutgoingCall(connection)
        try:
            yield call
        finally:
            if not call.over:
                await finished(call.leave())


async def _met(connect: Connect) -> Connection:
    """A connection to a server of our version.

    A server that hangs up before it has said a word is about to end, and was asked nothing: then the
    next one is.

    Raises:
        ServerError: there is no server, or it is of another version.
    """
    own, tries = await own_hello(), 0
    while True:
        tries += 1
        connection = await connect()
        try:
            check_versions(own, await connection.meet(own))
        except ConnectionError as error:
            await connection.close()
            if tries == CONNECT_TRIES:
                raise _lost() from error
        except TimeoutError as error:
            await connection.close()
            raise ServerError(
                "the server does not answer", reason="unreachable", retryable=True, cause=error
            ) from error
        except FrameError as error:
            await connection.close()
            raise senseless(error) from error
        except BaseException:
            await connection.close()
            raise
        else:
            return connection


async def asked(connect: Connect, request: Message, wanted: type[_Wanted]) -> _Wanted:
    """Make a call that only has a result.

    Raises:
        SandboxError: it has failed.
    """
    async with opened_call(connect, request) as call:
        return await call.result(wanted)


@asynccontextmanager
async def pumping(
    call: OutgoingCall, source: bytes | AsyncIterable[bytes] | None
) -> AsyncIterator[None]:
    """Send input for the length of a block.

    Raises:
        OSError: the source has failed; the block was left for it.
    """
    if source is None:
        yield
        return
    chunks = _pieces(source) if isinstance(source, bytes) else source
    block = asyncio.current_task()
    pump = asyncio.ensure_future(call.input.pump(chunks))
    failed: list[BaseException] = []
    left = False

    def look(task: asyncio.Future[None]) -> None:
        error = None if task.cancelled() or left else task.exception()
        if error is not None and block is not None:
            failed.append(error)
            block.cancel()

    pump.add_done_callback(look)
    try:
        yield
    except asyncio.CancelledError:
        if failed and block is not None:
            block.uncancel()
            raise failed[0] from None
        raise
    finally:
        left = True  # a callback that is under way can't be taken back
        pump.remove_done_callback(look)
        pump.cancel()
        await asyncio.wait((pump,))
        if not pump.cancelled():
            pump.exception()  # looked at, so that it is not reported as lost


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), COPY_CHUNK_BYTES):
        yield data[start : start + COPY_CHUNK_BYTES]


def senseless(error: FrameError) -> ServerError:
    """The error for a server that says what makes no sense."""
    return ServerError(
        f"what the server says makes no sense: {error}", reason="protocol", retryable=False
    )


def _unsendable(request: Message, error: ValueError) -> ArgumentError:
    kind = str(getattr(request, "type", "request"))
    return ArgumentError(
        f"the arguments can't be sent to another process: {shown(str(error))}; give contents as files "
        "of the session instead",
        op="connect",
        argument=kind,
        value=None,
        cause=error,
    )


def _lost() -> ServerError:
    return ServerError(
        "the server has gone while it was asked; if it was killed, its sessions have ended",
        reason="lost",
    )
