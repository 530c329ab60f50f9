"""Every example in the documentation runs, and prints what the page says."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path

import pytest

from sandyard import UnixLocalSandboxClient
from tests.docs.pages import PAGES, ROOT, Block, list_blocks, make_surroundings

PATIENCE_S = 30
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with what the examples work on, and a place for a supervisor."""
    make_surroundings(tmp_path)
    (tmp_path / ".run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ".run"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def run_awaiting(block: Block, names: dict[str, object]) -> None:
    """Run a block that awaits, with the client and the session that pages assume."""
    client = UnixLocalSandboxClient()
    session = await client.create()
    names |= {"client": client, "session": session}
    try:
        async with session:
            work = run_compiled(block, names)
            assert work is not None
            await work
    finally:
        await client.delete(session)


def run_compiled(block: Block, names: dict[str, object]) -> Coroutine[None, None, None] | None:
    """Run a block; one that awaits gives a coroutine instead."""
    code = compile(block.code, block.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    work: Coroutine[None, None, None] | None = eval(code, names)  # noqa: S307  # our own pages
    return work


@pytest.mark.parametrize("block", list_blocks("python"), ids=lambda block: block.name)
def test_python_runs(block: Block, surroundings: Path) -> None:
    names: dict[str, object] = {"__name__": "__main__", "tmp_path": surroundings}
    flags = compile(block.code, block.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT).co_flags
    if flags & inspect.CO_COROUTINE:
        asyncio.run(run_awaiting(block, names))
    else:
        run_compiled(block, names)


def split_calls(text: str) -> list[tuple[str, str]]:
    """The calls of a console block, each with what it prints."""
    calls: list[tuple[str, str]] = []
    for line in text.splitlines(keepends=True):
        if line.startswith("$ "):
            calls.append((line[2:], ""))
        else:
            command, shown = calls[-1]
            calls[-1] = (command, shown + line)
    return calls


@pytest.mark.timeout(240)  # each line of a block starts a program
@pytest.mark.parametrize("block", list_blocks("console"), ids=lambda block: block.name)
def test_console_prints_that(block: Block, surroundings: Path) -> None:
    programs = surroundings / "programs"
    programs.mkdir()
    (programs / "sandyard").write_text(
        f'#!/bin/sh\nexec {sys.executable} -P -m sandyard.cli "$@"\n'
    )
    (programs / "sandyard").chmod(0o755)
    try:
        for command, shown in split_calls(block.code):
            done = subprocess.run(
                ["bash", "-c", f'PATH="{programs}:$PATH"; {command}'],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=PATIENCE_S,
                check=False,
            )
            pattern = re.escape(shown).replace("…", ".*")
            assert re.fullmatch(pattern, done.stdout.decode()), (command, done.stdout)
    finally:
        if "sandyard create" in block.code:
            subprocess.run([programs / "sandyard", "supervisor", "stop"], check=True)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(path: Path, surroundings: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", path],
        cwd=surroundings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout


@pytest.mark.timeout(180)
def test_demo_holds() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "demo.py"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "\033" not in done.stdout


def test_pages_are_there() -> None:
    assert len(PAGES) > 5
