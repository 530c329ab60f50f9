"""How a session begins and ends: each behaviour has a session of its own."""

from __future__ import annotations

import asyncio

from sandyard.errors import ArgumentTypeError, SandboxError, SessionClosedError
from sandyard.testing.behaviours import Place, Promise, Suite, check, refused, same

__all__ = ["SUITE"]

SUITE = Suite("life")
says = SUITE.says


@says(Promise.LIFE, own=True)
async def runs_when_started(place: Place) -> None:
    """A session runs from its start to its shutdown, and says so."""
    session = place.session
    same(await session.running(), False)
    await session.start()
    same(await session.running(), True)
    await session.shutdown()
    same(await session.running(), False)


@says(Promise.LIFE, own=True)
async def starts_in_block(place: Place) -> None:
    """A block starts the session, and closes it."""
    async with place.session as session:
        check(session is place.session, session)
        same(await session.running(), True)
    same(await place.session.running(), False)


@says(Promise.LIFE, own=True)
async def starts_once(place: Place) -> None:
    """Starting a session that runs does nothing."""
    async with place.session as session:
        await session.exec("echo x > kept")
        await session.start()
        same((await session.exec("cat kept")).stdout, b"x\n")


@says(Promise.LIFE, own=True)
async def runs_nothing_before(place: Place) -> None:
    """Before its start a session runs no command."""
    with refused(SandboxError):
        await place.session.exec("true")


@says(Promise.LIFE, own=True)
async def runs_nothing_after(place: Place) -> None:
    """After its shutdown a session runs no command, and the error is a RuntimeError too."""
    await place.session.start()
    await place.session.shutdown()
    with refused(SessionClosedError) as caught:
        await place.session.exec("true")
    check(isinstance(caught[0], RuntimeError), caught[0])


@says(Promise.LIFE, own=True)
async def shuts_down_twice(place: Place) -> None:
    """Shutting down and closing again does nothing."""
    session = place.session
    await session.start()
    for _ in range(2):
        await session.shutdown()
    for _ in range(2):
        await session.aclose()


@says(Promise.LIFE, own=True)
async def starts_again(place: Place) -> None:
    """A session that was shut down starts again, with its files."""
    session = place.session
    await session.start()
    await place.put("kept")
    await session.shutdown()
    await session.start()
    same(await place.content("kept"), b"content")
    same((await session.exec("cat kept")).stdout, b"content")


@says(Promise.LIFE, own=True)
async def closed_for_good(place: Place) -> None:
    """A session that was closed does not start again."""
    async with place.session:
        pass
    with refused(SessionClosedError):
        await place.session.start()


@says(Promise.LIFE, own=True)
async def goes_on_after_stop(place: Place) -> None:
    """``stop`` saves the workspace, and the session goes on."""
    async with place.session as session:
        await session.stop()
        same((await session.exec("echo on")).stdout, b"on\n")


@says(Promise.ENDS, own=True)
async def ends_what_runs(place: Place) -> None:
    """A command that waits when the session is shut down ends with an error."""
    session = place.session
    await session.start()
    task = asyncio.ensure_future(session.exec("echo x > begun; sleep 600"))
    await session.exec("until [ -e begun ]; do sleep 0.01; done")
    await session.shutdown()
    with refused(SandboxError):
        await task


@says(Promise.ENDS, own=True)
async def ends_daemons(place: Place) -> None:
    """What commands left running ends with the session, what has a session of its own included."""
    session = place.session
    await session.start()
    # It writes as long as it lives; whoever restarts the session would see the file grow.
    text = "setsid sh -c 'while :; do echo x >> beats; sleep 0.02; done' >/dev/null 2>&1 &"
    await session.exec(text)
    await session.exec("until [ -s beats ]; do sleep 0.01; done")
    await session.shutdown()
    await session.start()
    await session.exec("rm beats; sleep 0.3")
    same([one.path.rpartition("/")[2] for one in await session.ls(".")], [])


@says(Promise.LIFE, own=True)
async def runs_hooks_once(place: Place) -> None:
    """Hooks run before the last stop, in order, once each, while commands can run."""
    told: list[bytes] = []
    session = place.session

    async def say(word: str) -> None:
        told.append((await session.exec(f"echo {word}")).stdout)

    session.register_pre_stop_hook(lambda: say("one"))
    session.register_pre_stop_hook(lambda: say("two"))
    async with session:
        pass
    await session.aclose()
    same(told, [b"one\n", b"two\n"])


@says(Promise.LIFE, own=True)
async def failed_hook_stops_nothing(place: Place) -> None:
    """A hook that fails is told when the session is closed, and all else is done."""
    session = place.session

    async def fail() -> None:
        raise LookupError("of the hook")

    session.register_pre_stop_hook(fail)
    await session.start()
    with refused(LookupError):
        await session.aclose()
    same(await session.running(), False)


@says(Promise.ERRORS, own=True)
async def refuses_odd_hook(place: Place) -> None:
    """A hook that can't be called is refused."""
    with refused(ArgumentTypeError):
        place.session.register_pre_stop_hook("hook")  # type: ignore[arg-type]  # on purpose


@says(Promise.LIFE, own=True)
async def sessions_are_apart(place: Place) -> None:
    """Two sessions run at once, and each has its own files."""
    async with place.session as one, place.make() as other, other:
        for session, word in ((one, b"one"), (other, b"other")):
            await session.write("it", word)
        said = await asyncio.gather(one.exec("cat it"), other.exec("cat it"))
        same([result.stdout for result in said], [b"one", b"other"])


@says(Promise.LIFE)
async def is_its_own_key(place: Place) -> None:
    """A session can be put into sets, and describes its manifest."""
    check(place.session in {place.session}, "it is not found")
    check(isinstance(place.session.describe(), str), "no text")


@says(Promise.TERMINALS)
async def tells_about_terminals(place: Place) -> None:
    """supports_pty tells whether processes can have terminals."""
    has_terminals = place.session.supports_pty()
    try:
        update = await place.session.pty_exec_start("exit 2", tty=True)
    except SandboxError as error:
        check(not has_terminals, error)
    else:
        same((has_terminals, update.exit_code), (True, 2))
