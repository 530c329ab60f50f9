"""Wherever a workspace lies and whatever lies in it, no door opens and the host runs none of it."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandyard import Policy
from tests.escape.bait import HOST_SECRETS, SECRET, Bait
from tests.escape.inside import run_python, sandbox

PROGRAMS = (
    "sh", "bash", "env", "git", "python3", "true", "mount", "umount", "unshare", "nsenter", "ip",
    "newuidmap", "newgidmap", "setpriv", "sudo", "tar", "rm", "ls", "chmod", "sandyard-init",
)  # fmt: skip

SWITCHES = (
    "SANDYARD_DISABLE=1 SANDYARD_CONFINEMENT=none SANDYARD_UNCONFINED=1 SANDYARD_POLICY=none "
    "NO_SANDBOX=1 DANGEROUSLY_DISABLE_SANDBOX=true"
)


def state_of(tree: Path) -> dict[str, tuple[int, int]]:
    """Names, modes and times of a tree."""
    return {
        str(path.relative_to(tree)): (path.lstat().st_mode, path.lstat().st_mtime_ns)
        for path in [tree, *tree.rglob("*")]
    }


@pytest.fixture(params=["/tmp", "/var/tmp", "home"])
def surroundings(request: pytest.FixtureRequest, bait: Bait) -> Iterator[Path]:
    """A directory of the host's that holds a project, and secrets beside it."""
    base = bait.base / "home" if request.param == "home" else Path(request.param)
    with tempfile.TemporaryDirectory(prefix="around-", dir=base) as made:
        around = Path(made)
        around.chmod(0o755)
        (around / "project").mkdir()
        (around / "data").write_text(SECRET)
        yield around


async def test_nothing_beside_the_workspace(bait: Bait, surroundings: Path) -> None:
    before = state_of(surroundings)
    async with sandbox(root=surroundings / "project") as session:
        shown = await session.exec(
            f"cat ../data {surroundings}/data {bait.base}/home/data {bait.scattered[0]}; ls -A ..; "
            "ls -A ../.. ../../.."
        )
        assert SECRET.encode() not in shown.stdout
        assert b"data" not in shown.stdout
        assert bait.scattered[0].name.encode() not in shown.stdout
        # Where /tmp is around the workspace, this makes a file in the session's own.
        await session.exec("echo x > ../made; mkdir ../made2; echo x > ../data; mv ../project ../p")
    assert state_of(surroundings) == before


async def test_no_ghosts_are_left(bait: Bait) -> None:
    """Mount points inside leave nothing on the host, in no directory that they show."""
    bait.reset()
    policy = Policy(
        reads=(str(bait.base / "granted" / "sub" / "more"), str(bait.workspace / "sub")),
        writes=(str(bait.base / "beside"),),
    )
    before = state_of(bait.base)
    async with sandbox(policy, bait.workspace) as session:
        assert (await session.exec("ls -la / /etc sub")).ok()
        for attempt in ("echo x > sub/file", "mv sub gone", "rm -rf sub", "ln sub/file h"):
            assert not (await session.exec(attempt)).ok(), attempt
        assert state_of(bait.base) == before
    assert state_of(bait.base) == before


async def test_programs_of_the_workspace_stay_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host starts nothing from the workspace, though PATH and the directory point there."""
    root, mark = tmp_path / "root", tmp_path / "ran"
    root.mkdir()
    for name in PROGRAMS:
        (root / name).write_text(f"#!/bin/sh\necho {name} >> {mark}\n")
        (root / name).chmod(stat.S_IRWXU)
    (root / "sitecustomize.py").write_text(f"open({str(mark)!r}, 'w')\n")
    monkeypatch.setenv("PATH", f".:{root}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.chdir(root)
    async with sandbox(root=root) as session:
        assert (await session.exec("echo on", shell=["/bin/sh", "-c"])).stdout == b"on\n"
        await session.write("f", b"x")
        await session.ls(".")
        await session.rm("f")
    assert not mark.exists(), mark.read_text()


@pytest.mark.parametrize(
    "name",
    ["a b", 'q"c', "p)(;:d", "$(touch made)", "`touch made`", "n\nl,comma", "back\\slash",
     "-leading", "%s%n{0}", "colon:comma,", "täg", "upper=dir,lower=x"],
)  # fmt: skip
async def test_odd_workspace(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    root.mkdir()
    async with sandbox(root=root) as session:
        result = await session.exec("echo on > f; cat f; touch ../made")
        assert result.stdout == b"on\n"
    assert os.listdir(root) == ["f"]
    assert os.listdir(tmp_path) == [name]


async def test_nothing_inside_switches_it_off(bait: Bait) -> None:
    bait.reset()
    (bait.workspace / ".env").write_text(SWITCHES.replace(" ", "\n"))
    (bait.workspace / "sandyard.toml").write_text("[policy]\nreads = ['/']\nunconfined = true\n")
    grab = f"cat {bait.base}/home/data"
    async with sandbox(root=bait.workspace) as session:
        for command in (
            f"export {SWITCHES}; {grab}",
            f"env {SWITCHES} sh -c '{grab}'",
            f"# dangerouslyDisableSandbox=true\n{grab}",
            f"echo '{SWITCHES}' > .env; {grab}",
        ):
            assert SECRET.encode() not in (await session.exec(command)).stdout
    async with sandbox(root=bait.workspace) as session:
        environment = dict(pair.split("=") for pair in SWITCHES.split())
        assert SECRET.encode() not in (await session.exec(grab, env=environment)).stdout


async def test_environment_is_an_allowlist(bait: Bait, monkeypatch: pytest.MonkeyPatch) -> None:
    bait.reset()
    for name in ("LD_PRELOAD_X", "DOCKER_HOST", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"):
        monkeypatch.setenv(name, SECRET)
    async with sandbox() as session:
        result = await run_python(session, "tell(*sorted(os.environ))")
        values = await session.exec("env; cat /proc/self/environ")
    names = set(result.stdout.decode().split())
    assert not names & {*HOST_SECRETS, "DOCKER_HOST", "XDG_RUNTIME_DIR"}
    assert SECRET.encode() not in values.stdout
    assert b"/home/agent" in values.stdout
