"""Whole runs of the Agents SDK's runner on our client, with a script for a model."""

from __future__ import annotations

import asyncio
import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from agents import RunState
from agents.sandbox import (
    Manifest,
    Permissions,
    SandboxAgent,
    SandboxConcurrencyLimits,
    SandboxRunConfig,
    User,
)
from agents.sandbox.capabilities import Capabilities, Filesystem, Shell, Skills
from agents.sandbox.capabilities.shell import ShellToolSet
from agents.sandbox.capabilities.skills import LocalDirLazySkillSource
from agents.sandbox.entries import File, LocalDir
from agents.sandbox.errors import ConfigurationError
from agents.sandbox.session import BaseSandboxSession
from agents.sandbox.snapshot_defaults import default_local_snapshot_base_dir

from sandyard.integrations.openai_agents import SandyardClient
from tests.integrations.scripting import (
    Step,
    called,
    is_there,
    outputs,
    patched,
    run,
    scripted,
    text_of,
)
from tests.workspace.test_sums import Counting

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
PATCH = """*** Begin Patch
*** Add File: notes.md
+# Notes
*** Update File: app.py
@@
-print("old")
+print("new")
*** Delete File: gone.txt
*** End Patch
"""


def running_id(said: str) -> int:
    found = re.search(r"running with session ID (\d+)", said)
    assert found is not None, said
    return int(found[1])


def body(said: str) -> str:
    return said.partition("Output:\n")[2]


async def test_tools_work_inside(client: SandyardClient, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    secret.chmod(0o644)
    manifest = Manifest(
        entries={"app.py": File(content=b'print("old")\n'), "gone.txt": File(content=b"x")}
    )
    live = await client.create(manifest=manifest)
    agent = SandboxAgent(
        name="coder",
        model=scripted(
            called("exec_command", 1, cmd=f"id -un; cat {secret}; echo made > out.txt; pwd"),
            patched(2, PATCH),
            called("exec_command", 3, cmd="python3 app.py; ls", workdir=".", shell="bash"),
            called("exec_command", 4, cmd=f"echo {PIXEL} | base64 -d > p.png"),
            called("view_image", 5, path="p.png"),
            called("exec_command", 6, cmd="read x; echo got $x", tty=True, yield_time_ms=250),
            lambda said: called(
                "write_stdin", 7, session_id=running_id(said[-1]), chars="hi\n", yield_time_ms=9000
            ),
            called("exec_command", 8, cmd="sleep 1000", yield_time_ms=250),
        ),
    )
    try:
        async with live:
            result = await run(agent, SandboxRunConfig(session=live))
            root = Path(live.state.manifest.root)
            assert result.final_output == "done"
            assert text_of(root, "out.txt") == "made\n"
            assert text_of(root, "notes.md").strip() == "# Notes"
            assert not is_there(root, "gone.txt")
    finally:
        await client.delete(live)
    assert not is_there(root)
    said = outputs(agent)
    lines = body(said[0]).splitlines()  # two streams, whichever comes first
    assert {"agent", str(root)} < set(lines)
    assert len(lines) == 3
    assert any("No such file" in line for line in lines)
    assert "hunter2" not in str(said)
    assert said[1].splitlines() == ["Created notes.md", "Updated app.py", "Deleted gone.txt"]
    assert body(said[2]).split() == ["new", "app.py", "notes.md", "out.txt"]
    assert f"data:image/png;base64,{PIXEL}" in said[4]
    assert "got hi" in body(said[6])
    assert "exited with code 0" in said[6]
    assert running_id(said[7])


BAD_PATCH = "*** Begin Patch\n*** Add File: {0}\n+x\n*** End Patch\n"
LOCKED_PATCH = "*** Begin Patch\n*** Update File: .git/config\n@@\n-[core]\n+[x]\n*** End Patch\n"


EARLIER = {
    # A path that no tool may use ends the run, before 0.24.
    "Invalid": find_spec("agents.sandbox.capabilities.tools._input_errors") is None,
    # A patch that adds a file may replace one, before 0.23.
    "already": not hasattr(BaseSandboxSession, "_write_new_file"),
}
"""What releases of the SDK before this one do not tell, by the first word of it."""


async def test_errors_stay_results(client: SandyardClient) -> None:
    """What a model can do wrong is told to it, and the run goes on."""
    tries: list[tuple[Step, str]] = [
        (called("exec_command", 1, cmd="a\0b"), "NUL character"),
        (called("exec_command", 3, cmd="x", shell="no-such-shell"), "exited with code 127"),
        (called("exec_command", 4, cmd="x", shell="/etc"), "exited with code 126"),
        (called("exec_command", 5, cmd="true " + "x" * 200_000), "exited with code 126"),
        (called("exec_command", 6, cmd="pwd", workdir="/etc"), "Invalid workdir"),
        (called("exec_command", 7, cmd="pwd", workdir="missing"), "can't cd"),
        (called("exec_command", 8, cmd="kill -9 $$"), "exited with code -9"),
        (called("exec_command", 9, cmd="kill -9 1; kill -9 -1; echo on"), "Process exited"),
        (called("write_stdin", 10, session_id=7, chars="x"), "write_stdin failed"),
        (called("exec_command", 11, cmd="sleep 1000", yield_time_ms=250), "running with session"),
        (
            lambda said: called("write_stdin", 12, session_id=running_id(said[-1]), chars="x"),
            "stdin is not available",
        ),
        (called("view_image", 15, path="missing.png"), "not found"),
        (called("view_image", 16, path="."), "unable to read image"),
        (called("view_image", 17, path="/etc/passwd"), "Invalid path"),
        (called("view_image", 18, path="a\0b"), "unable to read image"),
        (called("view_image", 19, path="out"), "unable to read image"),
        (patched(20, "nonsense"), "must start with"),
        (patched(21, BAD_PATCH.format("there")), "already exists"),
        (patched(22, BAD_PATCH.format("dangling")), "already exists"),
        (patched(23, BAD_PATCH.format("../out")), "must not escape"),
        (patched(24, BAD_PATCH.format("out/x")), "no symlink that points out of it"),
        (patched(25, LOCKED_PATCH), "protect"),
        (patched(26, "*** Begin Patch\n*** Delete File: missing\n*** End Patch\n"), "missing file"),
        (called("exec_command", 27, cmd="cat kept"), "content"),
    ]
    tries = [each for each in tries if not EARLIER.get(each[1].split()[0], False)]
    live = await client.create(
        manifest=Manifest(
            entries={
                "there": File(content=b"x"),
                "kept": File(content=b"content"),
                ".git/config": File(content=b"[core]\n"),
                ".git/HEAD": File(content=b"ref: refs/heads/main\n"),
            }
        )
    )
    agent = SandboxAgent(name="clumsy", model=scripted(*(step for step, _ in tries)))
    try:
        async with live:
            await live.exec("ln -s /no/where dangling; ln -s /etc out")
            result = await run(agent, SandboxRunConfig(session=live))
            assert result.final_output == "done"
            assert not is_there("/no/where")
    finally:
        await client.delete(live)
    told = list(zip(outputs(agent), (expected for _, expected in tries), strict=True))
    assert [each for each in told if each[1] not in each[0]] == []


def asking(toolset: ShellToolSet) -> None:
    toolset.exec_command.needs_approval = True


async def test_pause_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that waits for an approval is taken up from JSON, by another client, with its files."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    agent = SandboxAgent(
        name="careful",
        model=scripted(
            patched(1, "*** Begin Patch\n*** Add File: kept.txt\n+kept\n*** End Patch\n"),
            called("exec_command", 2, cmd="cat kept.txt; stat -c ' %a' kept.txt; pwd"),
        ),
        capabilities=[Filesystem(), Shell(configure_tools=asking)],
    )
    paused = await run(agent, SandboxRunConfig(client=SandyardClient()))
    assert len(paused.interruptions) == 1
    saved = paused.to_state().to_string()
    document = json.loads(saved)
    assert document["sandbox"]["backend_id"] == "sandyard"
    root = document["sandbox"]["session_state"]["manifest"]["root"]
    assert not is_there(root)
    archives = list(default_local_snapshot_base_dir().glob("*.tar"))
    assert len(archives) == 1

    state = await RunState.from_string(agent, saved)
    state.approve(state.get_interruptions()[0])
    result = await run(agent, SandboxRunConfig(client=SandyardClient()), state)
    assert result.final_output == "done"
    assert body(outputs(agent)[-1]).split() == ["kept", "644", root]
    assert not is_there(root)


async def test_handoff(client: SandyardClient) -> None:
    """Two agents have a sandbox each, at once, and see nothing of each other."""
    second = SandboxAgent(
        name="second",
        model=scripted(called("exec_command", 2, cmd="ls; ls /tmp; pwd; echo 2 > mine")),
    )
    first = SandboxAgent(
        name="first",
        model=scripted(
            called("exec_command", 1, cmd="echo 1 > mine; echo 1 > /tmp/mine; pwd"),
            called("transfer_to_second", 3),
        ),
        handoffs=[second],
    )
    result = await run(first, SandboxRunConfig(client=client))
    assert result.last_agent is second
    assert result.final_output == "done"
    ours, theirs = (body(said) for said in outputs(second) if "Output:" in said)
    assert ours.strip() != theirs.split()[-1]
    assert "mine" not in theirs


async def test_skills(
    client: SandyardClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    skill = tmp_path / "skills" / "count"
    skill.mkdir(parents=True)
    (skill / "SKILL.md").write_text("---\nname: count\ndescription: counts\n---\nRun count.sh\n")
    (skill / "count.sh").write_text("#!/bin/sh\necho 42\n")
    (skill / "count.sh").chmod(0o755)
    source = LocalDir(src=Path("skills"))
    ready = SandboxAgent(
        name="ready",
        default_manifest=Manifest(),  # without one, the SDK asks no capability for entries
        model=scripted(called("exec_command", 1, cmd=".agents/count/count.sh")),
        capabilities=[*Capabilities.default(), Skills(from_=source)],
    )
    await run(ready, SandboxRunConfig(client=client))
    assert body(outputs(ready)[0]) == "42\n"
    lazy = SandboxAgent(
        name="lazy",
        model=scripted(
            called("exec_command", 1, cmd="ls -A .agents"),
            called("load_skill", 2, skill_name="count"),
            called("exec_command", 3, cmd="cat .agents/count/SKILL.md"),
        ),
        capabilities=[
            *Capabilities.default(),
            Skills(lazy_from=LocalDirLazySkillSource(source=source)),
        ],
    )
    await run(lazy, SandboxRunConfig(client=client))
    assert "Run count.sh" in body(outputs(lazy)[2])


@pytest.mark.root
async def test_run_as(client: SandyardClient) -> None:
    agent = SandboxAgent(
        name="reviewer",
        model=scripted(
            called("exec_command", 1, cmd="id -un; cat private; touch mine"),
            patched(2, "*** Begin Patch\n*** Add File: board/by\n+x\n*** End Patch\n"),
            called("exec_command", 3, cmd="stat -c %U board/by"),
        ),
        run_as="reviewer",
    )
    private = File(content=b"mine", permissions=Permissions(owner=6))
    manifest = Manifest(users=[User(name="reviewer")], entries={"private": private})
    live = await client.create(manifest=manifest)
    try:
        async with live:
            await live.exec("mkdir -m 777 board")
            await run(agent, SandboxRunConfig(session=live))
    finally:
        await client.delete(live)
    said = outputs(agent)
    assert body(said[0]).startswith("reviewer\n")
    assert body(said[0]).count("Permission denied") == 2
    assert body(said[2]) == "reviewer\n"


async def test_run_as_agent(client: SandyardClient) -> None:
    agent = SandboxAgent(
        name="agent", model=scripted(called("exec_command", 1, cmd="id -un")), run_as="agent"
    )
    await run(agent, SandboxRunConfig(client=client))
    assert body(outputs(agent)[0]) == "agent\n"


async def test_two_runs_at_once(client: SandyardClient) -> None:
    def one(name: str) -> SandboxAgent[None]:
        steps = (called("exec_command", n, cmd=f"echo {name} >> log; cat log") for n in range(3))
        return SandboxAgent(name=name, model=scripted(*steps))

    several = [one(name) for name in ("a", "b", "c")]
    await asyncio.gather(*(run(each, SandboxRunConfig(client=client)) for each in several))
    for each in several:
        assert body(outputs(each)[-1]) == f"{each.name}\n" * 3


async def test_refused_before_the_run(client: SandyardClient) -> None:
    agent = SandboxAgent(name="one", model=scripted(), run_as="root")
    with pytest.raises(ConfigurationError, match="the system's own"):
        await run(agent, SandboxRunConfig(client=client))


async def test_limits_of_a_run(client: SandyardClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandyard.workspace.materialize.ThreadPoolExecutor", Counting)
    monkeypatch.setattr(Counting, "asked", [])
    manifest = Manifest()
    manifest.entries |= {f"f{number}": File(content=b"x") for number in range(40)}
    model = scripted(called("exec_command", 1, cmd="ls | wc -l"))
    agent = SandboxAgent(name="one", model=model, default_manifest=manifest)
    limits = SandboxConcurrencyLimits(manifest_entries=7)
    await run(agent, SandboxRunConfig(client=client, concurrency_limits=limits))
    assert body(outputs(agent)[-1]) == "40\n"
    assert Counting.asked == [6]  # and the thread that asks
