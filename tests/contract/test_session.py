"""The contract of sessions: what a kind must do, what it may leave out, and what it gets for nothing."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest

from sandyard import (
    ArgumentError,
    ArgumentTypeError,
    BaseSandboxSession,
    Dependencies,
    Dir,
    Manifest,
    SandboxSession,
    UnixLocalSandboxSession,
    UnixLocalSandboxSessionState,
    UnsupportedOperationError,
    WorkspaceStartError,
)
from tests.contract.memory import MemorySession

OLD_VERBS = {
    "aclose", "apply_manifest", "apply_patch", "dependencies", "describe", "exec", "extract",
    "hydrate_workspace", "ls", "mkdir", "mv", "normalize_path", "persist_workspace",
    "provision_manifest_accounts", "pty_exec_start", "pty_terminate_all", "pty_write_stdin", "read",
    "read_bounded", "register_persist_workspace_skip_path", "register_pre_stop_hook", "rm",
    "run_pre_stop_hooks", "running", "same_file", "set_dependencies",
    "should_provision_manifest_accounts_on_resume", "shutdown", "start", "stop",
    "supports_docker_volume_mounts", "supports_pty", "write",
}  # fmt: skip
"""Those of the OpenAI Agents SDK's sessions."""


@pytest.fixture
def session() -> MemorySession:
    return MemorySession(UnixLocalSandboxSessionState())


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_old_verbs_are_in_the_contract() -> None:
    assert public(BaseSandboxSession) >= OLD_VERBS


def test_sessions_here_have_all_of_it() -> None:
    assert issubclass(UnixLocalSandboxSession, BaseSandboxSession)
    assert SandboxSession is BaseSandboxSession
    for name in public(BaseSandboxSession):
        asked = inspect.getattr_static(BaseSandboxSession, name)
        given = inspect.getattr_static(UnixLocalSandboxSession, name)
        optional = "raise NotImplementedError" in inspect.getsource(getattr(asked, "fget", asked))
        assert not optional or given is not asked, name
        if inspect.isfunction(asked):
            told, done = (list(inspect.signature(verb).parameters) for verb in (asked, given))
            assert [one for one in done if one in told] == told, name


def test_an_unfinished_kind_makes_no_session() -> None:
    class Half(BaseSandboxSession):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]  # on purpose


def test_sessions_can_be_kept_in_sets(session: MemorySession) -> None:
    assert session in {session}
    assert session._inner is session  # noqa: SLF001  # as code for wrapped sessions asks


async def test_what_is_left_out_says_so(session: MemorySession) -> None:
    left_out = 0
    for name in public(BaseSandboxSession) - public(MemorySession).intersection(
        vars(MemorySession)
    ):
        verb: Any = inspect.getattr_static(MemorySession, name)
        if "raise NotImplementedError" not in inspect.getsource(getattr(verb, "fget", verb)):
            continue
        left_out += 1
        with pytest.raises(UnsupportedOperationError, match=rf"MemorySession has no {name}\(\)"):
            await call(verb, session)
    assert left_out > 25
    with pytest.raises(NotImplementedError):
        await session.pty_exec_start("true")
    await session.pty_terminate_all()
    assert not session.supports_pty()
    assert not session.supports_docker_volume_mounts()


async def test_some_verbs_are_made_of_others(session: MemorySession) -> None:
    await session.write("a", b"abcdef")
    assert await session.read_bounded("a", max_bytes=3) == b"abc"
    for odd in (0, True, 1.5, None):
        with pytest.raises(ArgumentError):
            await session.read_bounded("a", max_bytes=odd)  # type: ignore[arg-type]  # on purpose
    session.state.manifest = Manifest(entries={"src": Dir(description="sources")})
    assert "sources" in session.describe()


async def call(verb: Any, *args: object) -> None:  # noqa: ANN401  # any method
    """Call a method with whatever it does not know; some are awaited."""
    await verb(*args, "a", size=1)


class TestHooks:
    async def test_each_runs_once_in_order(self, session: MemorySession) -> None:
        async def say(what: str) -> None:
            session.told.append(what)

        session.register_pre_stop_hook(lambda: say("first"))
        session.register_pre_stop_hook(lambda: say("second"))
        await session.run_pre_stop_hooks()
        await session.run_pre_stop_hooks()
        session.register_pre_stop_hook(lambda: say("third"))
        async with session:
            pass
        await session.aclose()
        assert session.told == ["first", "second", "start", "third", "stop", "shutdown"]

    async def test_failure_keeps_nothing_from_being_saved(self, session: MemorySession) -> None:
        async def fail(error: BaseException) -> None:
            session.told.append(str(error))
            raise error

        session.register_pre_stop_hook(lambda: fail(LookupError("one")))
        session.register_pre_stop_hook(lambda: fail(asyncio.CancelledError("two")))
        session.failures["shutdown"] = OSError("gone")
        with pytest.raises(LookupError, match="one"):
            await session.aclose()
        assert session.told == ["one", "two", "stop", "shutdown"]

    async def test_hook_may_close_its_session(self, session: MemorySession) -> None:
        session.register_pre_stop_hook(session.aclose)
        await asyncio.gather(session.aclose(), session.aclose())
        assert session.told == ["stop", "shutdown"]

    @pytest.mark.parametrize("odd", [None, "hook", 3])
    def test_others_are_refused(self, session: MemorySession, odd: object) -> None:
        with pytest.raises(ArgumentTypeError):
            session.register_pre_stop_hook(odd)  # type: ignore[arg-type]  # on purpose


async def test_failed_start_is_what_is_told(session: MemorySession) -> None:
    session.failures["start"] = WorkspaceStartError(path=Path("/w"))
    session.failures["stop"] = session.failures["shutdown"] = UnsupportedOperationError(
        op="stop", method="stop", session="MemorySession", argument="processes"
    )
    with pytest.raises(WorkspaceStartError) as raised:
        async with session:
            pytest.fail("it has not started")
    assert session.told == ["start", "stop", "shutdown"]
    assert "processes= of stop()" in raised.value.__notes__[0]


async def test_dependencies_are_closed(session: MemorySession) -> None:
    closed = []

    class Closable:
        async def aclose(self) -> None:
            closed.append(self)

    session.set_dependencies(
        Dependencies().bind_factory("it", lambda _: Closable(), owns_result=True)
    )
    session.set_dependencies(None)
    made = await session.dependencies.get("it")
    await session.aclose()
    assert closed == [made]
