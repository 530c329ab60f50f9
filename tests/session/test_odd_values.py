"""Whatever a caller gives a verb, in whatever state the session is: no raw error ever leaves."""

from __future__ import annotations

import asyncio
import inspect
import io
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from sandyard import (
    BackgroundProcess,
    CommandStream,
    SandboxError,
    Terminal,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)

Session = UnixLocalSandboxSession

ODD: dict[str, object] = {
    "None": None,
    "True": True,
    "-1": -1,
    "0": 0,
    "2**31": 2**31,
    "2**64": 2**64,
    "10**5000": 10**5000,  # more digits than Python turns into text
    "-10**5000": -(10**5000),
    "1.5": 1.5,
    "nan": math.nan,
    "inf": math.inf,
    "''": "",
    "NUL": "a\0b",
    "surrogate": "\ud800",
    "long": "x" * 5000,
    "bytes": b"x",
    "list": [],
    "dict": {"a": 1},
    "set": set[int](),
    "object": object(),
}
"""What the tables below are tried with, one argument at a time."""

FEW = {name: ODD[name] for name in ("None", "10**5000", "nan", "list")}

SPAWNED: dict[str, object] = {
    "timeout": 5, "shell": True, "cwd": None, "env": None, "stdin": None, "narrow": None,
    "user": None,
}  # fmt: skip
FILE: tuple[object, ...] = ("f",)


async def hook() -> None:
    """Do nothing before the last stop."""


VERBS: dict[str, tuple[tuple[object, ...], dict[str, object]]] = {
    "append": (("f", b"x"), {"user": None}),
    "apply_manifest": ((), {"only_ephemeral": False, "progress": None}),
    "apply_patch": (([],), {"patch_format": "v4a", "user": None}),
    "apply": ((), {"paths": None, "overwrite": False}),
    "chmod": (("f", 0o644), {"user": None}),
    "copy": (("f", "g"), {"recursive": False, "user": None}),
    "describe": ((), {}),
    "diff": ((), {"text": True}),
    "discard": ((), {}),
    "download": (
        ("f", "down"),
        {"include": (), "exclude": (), "gitignore": False, "outer_links": False, "progress": None, "user": None},
    ),
    "exec": (("true",), SPAWNED | {"output_limit": None, "leftovers": "keep"}),
    "exists": (FILE, {"follow_symlinks": True, "user": None}),
    "extract": (
        ("a.tar", b""),
        {"compression_scheme": None, "archive_limits": None, "keep_archive": True},
    ),
    "glob": (("*",), {"path": ".", "user": None}),
    "grep": (
        ("x",),
        {
            "path": ".", "syntax": "literal", "ignore_case": False, "include": None,
            "binary": False, "max_matches": 5, "timeout": 60, "user": None,
        },
    ),
    "hydrate_workspace": ((b"",), {"archive_limits": None}),
    "ls": ((".",), {"recursive": False, "user": None}),
    "mkdir": (("d",), {"parents": True, "user": None}),
    "mount": (("m", None), {}),
    "mounts": ((), {}),
    "mv": (("g", "h"), {"user": None}),
    "normalize_path": (FILE, {"for_write": False}),
    "pack": (FILE, {"name": None, "outer_links": True}),
    "persist_workspace": ((), {}),
    "process": (("p",), {}),
    "processes": ((), {}),
    "provision_manifest_accounts": ((), {}),
    "pty_exec_start": (
        ("true",),
        {
            "timeout": 5, "shell": True, "tty": False, "yield_time_s": 0.05,
            "max_output_tokens": None, "user": None,
        },
    ),
    "pty_terminate_all": ((), {}),
    "pty_write_stdin": (
        (),
        {"session_id": 1, "chars": "x", "yield_time_s": 0.05, "max_output_tokens": 5},
    ),
    "read": (FILE, {"user": None}),
    "read_bounded": (FILE, {"max_bytes": 5, "user": None}),
    "read_chunks": (FILE, {"offset": 0, "size": None, "chunk_bytes": 5, "user": None}),
    "read_range": (FILE, {"offset": 0, "size": 5, "user": None}),
    "register_pre_stop_hook": ((hook,), {}),
    "register_persist_workspace_skip_path": (("skip",), {}),
    "remove_process": (("p",), {}),
    "resolve_exposed_port": ((8000,), {}),
    "review": ((), {}),
    "rm": (("h",), {"recursive": False, "user": None}),
    "running": ((), {}),
    "same_file": (("f", "f"), {"follow_symlinks": True, "user": None}),
    "start_process": (("true",), SPAWNED | {"name": None, "log_limit": None}),
    "stat": (FILE, {"follow_symlinks": True, "user": None}),
    "stream": (("true",), SPAWNED | {"leftovers": "keep"}),
    "should_provision_manifest_accounts_on_resume": ((), {}),
    "supports_docker_volume_mounts": ((), {}),
    "supports_pty": ((), {}),
    "terminal": (
        ("true",),
        {
            "rows": 24, "columns": 80, "shell": True, "timeout": 5, "cwd": None, "env": None,
            "name": None, "scrollback": 1000, "leftovers": "keep", "narrow": None, "user": None,
        },
    ),
    "terminals": ((), {}),
    "unmount": (("m",), {}),
    "unpack": ((".", b""), {"archive_limits": None}),
    "upload": (
        ("src", "up"),
        {"include": (), "exclude": (), "gitignore": False, "progress": None, "user": None},
    ),
    "wait_for_port": ((8000,), {"timeout": 0.05}),
    "watch": ((".",), {"recursive": True, "user": None}),
    "why": (("/etc",), {"syscall": None}),
    "write": (("f", b"x"), {"user": None}),
}  # fmt: skip

LIFE = {
    "aclose", "checkpoint", "closed", "confinement", "delete_workspace", "dependencies",
    "duplicate_to", "fill_from", "forked", "from_state", "lay_under", "limit_concurrency", "materialized",
    "save_snapshot",
    "observer", "provide", "refused_calls", "run_pre_stop_hooks", "set_dependencies", "shutdown", "start", "stop",
}  # fmt: skip


async def use(answer: object) -> None:
    """Wait for an answer, take all that it gives, and let go of it."""
    if inspect.isawaitable(answer):
        answer = await answer
    match answer:
        case io.IOBase():
            answer.close()
        case Terminal() | BackgroundProcess():
            await answer.close()
        case CommandStream():
            async for _ in answer:
                pass
        case AbstractAsyncContextManager():
            async with answer as entered:
                if isinstance(entered, CommandStream):
                    await use(entered)
        case _ if inspect.isasyncgen(answer):
            async for _ in answer:
                pass


async def attempt(label: str, verb: Callable[..., object], *args: object, **more: object) -> None:
    """Make a call: it does what it says, or raises an error of the library's."""
    try:
        await use(verb(*args, **more))
    except SandboxError:
        pass
    except Exception as error:
        error.add_note(label)
        raise


async def attempt_all(session: Session, odd: Mapping[str, object], state: str) -> None:
    """Make the calls of the table, each with one argument that is odd."""
    for name, (args, options) in VERBS.items():
        verb: Callable[..., object] = getattr(session, name)
        await attempt(f"{state}: {name}", verb, *args, **options)
        for said, value in odd.items():
            for at in range(len(args)):
                changed = (*args[:at], value, *args[at + 1 :])
                await attempt(f"{state}: {name}, {at}: {said}", verb, *changed, **options)
            for key in options:
                changed_options = options | {key: value}
                await attempt(f"{state}: {name}, {key}: {said}", verb, *args, **changed_options)


def test_every_verb_is_here() -> None:
    verbs = {name for name in dir(Session) if not name.startswith("_")}
    assert verbs == {*VERBS, *LIFE}
    for name, (args, options) in VERBS.items():
        found = inspect.signature(getattr(Session, name)).parameters
        assert len(found) == 1 + len(args) + len(options), name


async def test_verbs_raise_nothing_raw(
    client: UnixLocalSandboxClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src").write_text("sent")
    monkeypatch.chdir(tmp_path)  # where downloads with odd names come to stand
    session = await client.create()
    try:
        await attempt_all(session, FEW, "new")
        await session.start()
        await session.write("f", b"hello\n")
        await attempt_all(session, ODD, "running")
        assert (await session.exec("echo on")).stdout == b"on\n"
        await session.aclose()
        await attempt_all(session, FEW, "closed")
    finally:
        await client.delete(session)
    await attempt_all(session, FEW, "deleted")


async def test_resuming_raises_nothing_raw(client: UnixLocalSandboxClient) -> None:
    session = await client.create()
    await session.aclose()
    options = {"policy": None, "root": None, "snapshot": None, "shared": False}
    for said, value in ODD.items():
        await attempt(f"state: {said}", Session.from_state, value)
        for key in options:
            if key != "shared":  # which may be anything that is true or false
                odd = options | {key: value}
                await attempt(f"{key}: {said}", resume_and_close, session.state, **odd)
    await client.delete(session)


async def resume_and_close(state: object, **options: object) -> None:
    await (await Session.from_state(state, **options)).aclose()  # type: ignore[arg-type]  # on purpose


async def test_handles_raise_nothing_raw(session: Session) -> None:
    terminal = await session.terminal("cat")
    process = await session.start_process("cat >/dev/null; exec sleep 60", stdin=True)
    async with session.stream("exec sleep 60") as stream:
        for state in ("running", "ended"):
            for said, value in ODD.items():
                await attempt_handles(f"{state}, {said}", value, terminal, process, stream)
            if state == "running":
                assert (terminal.exit_code, process.exit_code) == (None, None)
                await terminal.close()
                await process.close()


async def attempt_handles(
    label: str,
    odd: Any,  # noqa: ANN401  # whatever a caller may give
    terminal: Terminal,
    process: BackgroundProcess,
    stream: CommandStream,
) -> None:
    calls: dict[str, Callable[[], object]] = {
        "write": lambda: terminal.write(odd),
        "rows": lambda: terminal.resize(odd, 80),
        "columns": lambda: terminal.resize(24, odd),
        "terminal signal": lambda: terminal.signal(odd),
        "to": lambda: terminal.signal("WINCH", to=odd),
        "process signal": lambda: process.signal(odd),
        "tree": lambda: process.signal("WINCH", tree=odd),
        "stream signal": lambda: stream.signal(odd),
        "wait": lambda: briefly(process.wait(odd)),
        "typed": lambda: process.stdin.write(odd),
        "start": lambda: process.logs(start=odd, follow=False),
        "last_bytes": lambda: process.logs(last_bytes=odd, follow=False),
        "last_lines": lambda: process.logs(last_lines=odd, follow=False),
        "stream": lambda: process.logs(stream=odd, follow=False),
    }
    for name, call in calls.items():
        await attempt(f"{label}: {name}", call)


async def briefly(waiting: Awaitable[object]) -> None:
    """Let something wait that may wait for long: its argument is checked at once."""
    task = asyncio.ensure_future(waiting)
    await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task])
    for ended in done:
        if not ended.cancelled():
            ended.result()


async def test_clients_raise_nothing_raw(client: UnixLocalSandboxClient) -> None:
    for said, value in ODD.items():
        for key in ("snapshot", "manifest", "options", "policy"):
            if value is not None:
                with pytest.raises(SandboxError):
                    await client.create(**{key: value})  # type: ignore[arg-type]  # on purpose
        await attempt(f"delete, {said}", client.delete, value)
        with pytest.raises(SandboxError):
            await client.fork(value)  # type: ignore[arg-type]  # on purpose
