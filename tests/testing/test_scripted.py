"""ScriptedSession: what the suite says of its files, and what its script says of commands."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from inspect import signature
from pathlib import Path

import pytest

from sandyard import (
    ArgumentError,
    ArgumentTypeError,
    Dir,
    ExecResult,
    ExecTimeoutError,
    ExecTransportError,
    File,
    GitRepo,
    LocalSnapshotSpec,
    Manifest,
    SandboxError,
    SessionClosedError,
    UnscriptedCommandError,
    UnsupportedOperationError,
    User,
    WorkspaceArchiveWriteError,
)
from sandyard.testing import ScriptedCall, ScriptedClient, ScriptedSession, run_conformance
from tests.session.test_odd_values import ODD, VERBS, attempt

LACKING = {
    "searching.greps_bounded": "grep()",
    "searching.greps_chosen_files": "grep()",
    "searching.greps_lines": "grep()",
    "searching.greps_literally": "grep()",
    "searching.watches_changes": "watch()",
}
COMMANDS = (
    "refuses_negative_timeout",
    "refuses_no_words",
    "refuses_nul",
    "refuses_odd_variable",
    "refuses_unknown_user",
    "refuses_zero_timeout",
    "refuses_missing_directory",
)
LIVES = (
    "closed_for_good",
    "failed_hook_stops_nothing",
    "is_its_own_key",
    "refuses_odd_hook",
    "runs_nothing_after",
    "runs_nothing_before",
    "runs_when_started",
    "shuts_down_twice",
    "starts_in_block",
    "tells_about_terminals",
)


@asynccontextmanager
async def make_scripted() -> AsyncIterator[ScriptedSession]:
    session = ScriptedSession()
    try:
        yield session
    finally:
        await session.aclose()


async def test_files_are_like_real() -> None:
    claimed = ("reading", "writing", "searching")
    result = await run_conformance(make_scripted, only=claimed)
    assert not result.failed, str(result)
    assert {one.behaviour.name: one.why for one in result.not_offered} == LACKING
    assert len(result.passed) > 70


async def test_refuses_as_real_ones() -> None:
    chosen = [
        *(f"commands.{name}" for name in COMMANDS),
        *(f"life.{name}" for name in LIVES),
    ]
    result = await run_conformance(make_scripted, only=chosen)
    assert len(result.passed) == len(chosen), str(result)


class TestAnswers:
    async def test_by_text_and_words(self) -> None:
        session = ScriptedSession()
        session.answer("git commit -m 'a b'", stdout="text")
        session.answer(["git", "push"], exit_code=128, stderr=b"\xff no")
        async with session:
            for shell in (True, False):
                done = await session.exec("git", "commit", "-m", "a b", shell=shell)
                assert done.stdout == b"text"
            done = await session.exec("git", "push")
            assert (done.exit_code, done.stderr, done.ok()) == (128, b"\xff no", False)
            with pytest.raises(UnscriptedCommandError):
                await session.exec("git push")  # one word is another than two
        assert [call.words for call in session.unscripted] == [("git push",)]

    async def test_by_pattern_and_function(self) -> None:
        def slow(call: ScriptedCall) -> bool:
            return call.timeout is None

        session = ScriptedSession()
        session.answer(re.compile(r"pip install (\w+)"), stdout="installed")
        session.answer(slow, exit_code=-9)
        async with session:
            assert (await session.exec("pip install x", timeout=1)).stdout == b"installed"
            assert (await session.exec("other")).exit_code == -9
            with pytest.raises(UnscriptedCommandError) as caught:
                await session.exec("pip install x && rm -rf /", timeout=1)
        error = caught.value
        assert isinstance(error, AssertionError)
        assert isinstance(error, SandboxError)
        assert "has no answer to 'pip install x && rm -rf /'" in error.message
        assert "what matches 'pip install (\\\\w+)'; what slow() says" in error.message

    async def test_in_their_order(self) -> None:
        session = ScriptedSession().answer("make", exit_code=2, times=1)
        session.answer("make", stdout="ok", times=2)
        async with session:
            assert [(await session.exec("make")).exit_code for _ in range(3)] == [2, 0, 0]
            with pytest.raises(UnscriptedCommandError, match=r"'make' \(used up\)"):
                await session.exec("make")

    async def test_by_a_function(self) -> None:
        session = ScriptedSession(files={"in": "words"})

        async def sort(call: ScriptedCall) -> bytes:
            await session.write("out", (await session.read("in")).read())
            return b"sorted " + call.stdin

        session.answer("sort", does=sort)
        session.answer("all", does=lambda call: ExecResult(stdout=b"", stderr=b"e", exit_code=3))
        session.answer("odd", does=lambda call: 3)  # type: ignore[arg-type,return-value]  # on purpose
        async with session:
            assert (await session.exec("sort", stdin=io.BytesIO(b"it"))).stdout == b"sorted it"
            assert (await session.read("out")).read() == b"words"
            assert (await session.exec("all")).exit_code == 3
            with pytest.raises(ArgumentTypeError, match="does="):
                await session.exec("odd")

    async def test_errors(self) -> None:
        session = ScriptedSession()
        session.answer("slow", raises=ExecTimeoutError(command=["slow"], timeout_s=3))
        async with session:
            with pytest.raises(ExecTimeoutError):
                await session.exec("slow")

    async def test_time_is_kept(self) -> None:
        ended: list[str] = []
        begun = asyncio.Event()

        async def hang(call: ScriptedCall) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(call.text)

        session = ScriptedSession().answer("one", does=hang).answer("two", does=hang)
        async with session:
            with pytest.raises(ExecTimeoutError):
                await session.exec("one", timeout=0.01)
            begun.clear()
            waiting = asyncio.ensure_future(session.exec("two"))
            await begun.wait()
            await session.shutdown()
            with pytest.raises(ExecTransportError):
                await waiting
        assert ended == ["one", "two"]

    async def test_streams_them(self) -> None:
        session = ScriptedSession().answer("make", stdout="out", stderr="err", exit_code=1)
        async with session, session.stream("make") as build:
            with pytest.raises(ExecTransportError, match="not ended"):
                _ = build.result
            assert [(one.stream, one.data) async for one in build] == [
                ("stdout", b"out"),
                ("stderr", b"err"),
            ]
            assert build.result.exit_code == 1

    async def test_bounded(self) -> None:
        session = ScriptedSession().answer("much", stdout=b"a" * 100 + b"z" * 100)
        async with session:
            done = await session.exec("much", output_limit=8)
        assert (done.stdout, done.stdout_total) == (b"aazzzzzz", 200)

    @pytest.mark.parametrize(
        ("command", "options"),
        [
            (3, {}),
            (b"ls", {}),
            (re.compile(b"ls"), {}),
            ("ls", {"stdout": 3}),
            ("ls", {"exit_code": True}),
            ("ls", {"exit_code": 256}),
            ("ls", {"times": 0}),
            ("ls", {"times": "x"}),
        ],
    )
    def test_odd_ones_are_refused(self, command: object, options: dict[str, object]) -> None:
        with pytest.raises(ArgumentError):
            ScriptedSession().answer(command, **options)  # type: ignore[arg-type]  # on purpose


async def test_calls_are_written_down() -> None:
    session = ScriptedSession(manifest=Manifest(root="/srv/work", users=[User(name="ann")]))
    session.answer(["ls", "-l"])
    async with session:
        await session.mkdir("sub")
        await session.exec(
            *("ls", "-l"),
            timeout=5,
            shell=["bash", "-c"],
            user="ann",
            cwd="sub",
            env={"A": "b"},
            stdin=b"in",
        )
    assert session.calls == [
        ScriptedCall(
            words=("ls", "-l"),
            text="ls -l",
            argv=("bash", "-c", "ls -l"),
            timeout=5,
            user="ann",
            cwd="/srv/work/sub",
            env={"A": "b"},
            stdin=b"in",
        )
    ]


async def test_odd_input() -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1, /) -> bytes:
            raise OSError(5, "gone")

    async def words() -> AsyncIterator[str]:
        yield "text"

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"a", b"b"):
            yield piece

    session = ScriptedSession().answer("cat", does=lambda call: call.stdin)
    async with session:
        assert (await session.exec("cat", stdin=pieces())).stdout == b"ab"
        with pytest.raises(ArgumentTypeError):
            await session.exec("cat", stdin=words())  # type: ignore[arg-type]  # on purpose
        with pytest.raises(ExecTransportError, match="gone"):
            await session.exec("cat", stdin=Broken())  # type: ignore[arg-type]  # as some files are
        await session.exec("cat", env={"A": "\udcff"}, cwd="/\udcff")
    assert (session.calls[-1].env, session.calls[-1].cwd) == ({"A": "\udcff"}, "/\udcff")


async def test_verbs_raise_nothing_raw() -> None:
    session = ScriptedSession(files={"f": "hello\n"}).answer(lambda call: True)
    async with session:
        for name in VERBS.keys() & set(dir(session)):
            (args, options), verb = VERBS[name], getattr(session, name)
            known = {key: options[key] for key in signature(verb).parameters if key in options}
            for said, value in ODD.items():
                for at in range(len(args)):
                    changed = (*args[:at], value, *args[at + 1 :])
                    await attempt(f"{name}, {at}: {said}", verb, *changed, **known)
                for key in known:
                    await attempt(f"{name}, {key}: {said}", verb, *args, **known | {key: value})
        assert await session.running()


class TestCheck:
    async def test_caught_errors_show(self) -> None:
        session = ScriptedSession().answer("ls")
        async with session:
            with suppress(SandboxError):
                await session.exec("rm -rf build")
        with pytest.raises(UnscriptedCommandError, match="no answer to 'rm -rf build'"):
            session.check_answers()

    async def test_answers_left_over(self) -> None:
        session = ScriptedSession().answer("ls").answer("git push", times=2)
        async with session:
            await session.exec("git push")
        with pytest.raises(AssertionError, match="nobody asked for: 'git push'"):
            session.check_answers()

    async def test_all_is_well(self) -> None:
        session = ScriptedSession().answer("ls", times=1).answer("never asked")
        async with session:
            await session.exec("ls")
        session.check_answers()


class TestWorkspace:
    async def test_manifest_is_made_once(self) -> None:
        entries = {"d": Dir(children={"a.sh": File(content=b"x")})}
        session = ScriptedSession(manifest=Manifest(entries=entries))
        async with session:
            assert (await session.stat("d/a.sh")).permissions.to_mode() == 0o755
            await session.write("d/a.sh", b"y")
            await session.shutdown()
            await session.start()
            assert (await session.read("d/a.sh")).read() == b"y"
        with pytest.raises(SessionClosedError):
            await session.read("d/a.sh")

    async def test_other_entries_are_refused(self) -> None:
        entries = {"a": File(content=b"x"), "r": GitRepo(repo="a/b", ref="main")}
        session = ScriptedSession(manifest=Manifest(entries=entries))
        with pytest.raises(UnsupportedOperationError) as caught:
            await session.start()
        assert caught.value.context["argument"] == "git_repo"
        assert await session.running() is False

    async def test_saved_and_restored(self) -> None:
        async with ScriptedSession(files={"a/b": "1", "old": "2"}) as one:
            await one.mkdir("empty")
            await one.chmod("a/b", 0o600)
            saved = await one.persist_workspace()
        async with ScriptedSession(files={"old": "kept?", "other": "3"}) as two:
            await two.hydrate_workspace(saved)
            found = {
                entry.path: (entry.size, str(entry.permissions))
                for entry in await two.ls(".", recursive=True)
            }
            assert found == {
                "/workspace/a": (0, "drwxr-xr-x"),
                "/workspace/a/b": (1, "-rw-------"),
                "/workspace/empty": (0, "drwxr-xr-x"),
                "/workspace/old": (1, "-rw-r--r--"),
                "/workspace/other": (1, "-rw-r--r--"),
            }
            with pytest.raises(WorkspaceArchiveWriteError):
                await two.hydrate_workspace(b"no archive at all")

    async def test_says_what_it_lacks(self) -> None:
        async with ScriptedSession() as session:
            for lacking in (
                session.pty_exec_start("sh", tty=True),
                session.start_process("sleep 9"),
                session.grep("x"),
                session.pack("."),
            ):
                with pytest.raises(UnsupportedOperationError, match="ScriptedSession has no"):
                    await lacking


class TestClient:
    async def test_makes_and_deletes(self) -> None:
        client = ScriptedClient(lambda session: session.answer("cat a", stdout="x"))
        session = await client.create(manifest=Manifest(entries={"a": File(content=b"x")}))
        async with session:
            assert (await session.exec("cat a")).stdout == b"x"
        other = await client.create(snapshot={"type": "noop"})
        assert (client.sessions, client.deleted) == ([session, other], [])
        for _ in range(2):
            await client.delete(session)
        assert client.deleted == [session]
        with pytest.raises(SessionClosedError):
            await session.start()
        read = client.deserialize_session_state(client.serialize_session_state(session.state))
        assert read.session_id == session.state.session_id

    async def test_says_what_it_lacks(self, tmp_path: Path) -> None:
        client = ScriptedClient()
        with pytest.raises(UnsupportedOperationError, match="ScriptedClient has no snapshot="):
            await client.create(snapshot=LocalSnapshotSpec(base_path=str(tmp_path)))
        with pytest.raises(UnsupportedOperationError, match="ScriptedClient has no resume"):
            await client.resume((await client.create()).state)
        with pytest.raises(ArgumentTypeError):
            await client.delete(ScriptedSession())
        with pytest.raises(ArgumentTypeError):
            ScriptedClient("make")  # type: ignore[arg-type]  # on purpose
