"""Which rung is chosen on which host, what it says of itself, and what is refused there."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sandyard import Policy
from sandyard.policy import DIMENSIONS
from tests.escape.inside import sandbox
from tests.ladder.hosts import HOSTS, Host, ask

ACCEPTING = {"policy": {"accept": ["write"]}}
REQUIRED = ("strict", "full", "read", "processes", "full_without_proc")


def start(how: str, *orders: dict[str, Any]) -> list[dict[str, Any]]:
    told: Any = ask(how, "tests.ladder.starter", orders)
    return list(told)


@cache
def start_twice(how: str) -> list[dict[str, Any]]:
    """What two starts of one program tell on this host; it is asked by several tests."""
    return start(how, ACCEPTING, ACCEPTING)


@cache
def start_requiring() -> dict[str, dict[str, Any]]:
    """What one program is told on a host of the lowest rung, for each thing that it requires."""
    policies = [{"accept": ["write"], "require": [required]} for required in REQUIRED]
    told = start("nested,no_user", *({"policy": policy} for policy in policies))
    return dict(zip(REQUIRED, told, strict=True))


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.how)
def test_rung_is_chosen_and_told(host: Host) -> None:
    first, again = start_twice(host.how)
    assert first["report"]["rung"] == host.rung, first
    assert host.says in first["report"]["cause"]
    assert first["fix"]
    assert first["said"] == "works\n"
    assert first["shared"] == 0, "commands can't use what the host wrote"
    assert first["state"] == first["report"]
    assert again == first, "what was found once is found again"


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.how)
def test_claims_are_these(host: Host) -> None:
    told, _ = start_twice(host.how)
    states = {name: told["report"][name].partition(":")[0] for name in DIMENSIONS}
    expected = dict.fromkeys(DIMENSIONS, "enforced")
    if host.rung == "landlock_seccomp":
        expected |= dict.fromkeys(("read", "processes", "resources"), "partial")
        if host.ordinary:
            expected["write"] = "partial"
    assert states == expected, told["report"]


def test_more_than_metadata_is_refused() -> None:
    (told,) = start("nested,no_user", {"policy": {}})
    assert told["context"]["dimension"] == "write"
    assert "files that are your own can be changed" in told["refused"]
    assert "namespaces, errno 1]" in told["refused"]
    assert "Policy(accept=('write',))" in told["refused"]


def test_no_landlock_is_no_rung() -> None:
    (told,) = start("no_landlock,nested,no_user", ACCEPTING)
    assert told["context"]["dimension"] == "processes"
    assert "making namespaces" in told["refused"]


@pytest.mark.root
def test_unseen_processes_are_no_rung() -> None:
    """What gives up being dumpable would not be found under hidepid, and outlive its timeout."""
    (told,) = start("unseen_proc,no_user", ACCEPTING)
    assert told["context"]["dimension"] == "processes", told


@pytest.mark.parametrize("required", REQUIRED)
def test_required_is_refused(required: str) -> None:
    assert "To fix it" in start_requiring()[required]["refused"]


def test_rung_without_proc_is_whole() -> None:
    policy = {"require": [*DIMENSIONS, "full_without_proc"]}
    (told, refused) = start(
        "nested,covered_proc",
        {"policy": policy, "command": "ls /proc; cat /proc/self/environ /proc/1/stat"},
        {"policy": {"require": ["full"]}},
    )
    assert "cpuinfo\nfilesystems\nloadavg" in told["said"]
    assert "/proc/self/environ: No such file" in told["said"]
    assert "the rung full is required" in refused["refused"]


def test_part_of_writable_tree(tmp_path: Path) -> None:
    """What mounts would hold within a writable tree, Landlock can't."""
    (tmp_path / ".git" / "hooks").mkdir(parents=True)
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git" / "config").write_text("[core]\n")
    (tmp_path / "objects").mkdir()
    (tmp_path / "key").write_text("x")
    root = {"root": str(tmp_path)}
    kept, denied = start(
        "nested,no_user",
        root | {"policy": {}},
        root | {"policy": {"accept": ["write"], "deny": [str(tmp_path / "key")], "protect": []}},
    )
    assert "can't keep a part of a writable tree as it is" in kept["refused"]
    assert "Policy(protect=())" in kept["refused"]
    assert denied["context"]["dimension"] == "read"


def test_denied_is_not_shown(tmp_path: Path) -> None:
    """Of a tree that is shown, only what holds nothing denied is shown."""
    granted = tmp_path / "granted"
    for name in ("open", "closed"):
        (granted / name).mkdir(parents=True)
        (granted / name / "file").write_text(name)
    policy = {"accept": ["write"], "reads": [str(granted)], "deny": [str(granted / "closed")]}
    code = f"cat {granted}/open/file {granted}/closed/file"
    (told,) = start("nested,no_user", {"policy": policy, "command": code})
    assert told["said"].startswith("open"), told
    assert "closed/file: Permission denied" in told["said"]


@pytest.mark.root
def test_directory_of_root_is_refused(tmp_path: Path) -> None:
    (told,) = start("no_user", {"policy": {}, "root": str(tmp_path)})
    assert "can't be written to by commands of root's" in told["refused"]
    assert told["context"]["dimension"] == "write"


@pytest.mark.root
def test_workspace_without_idmap_is_given() -> None:
    (told,) = start("no_idmap", {"policy": {"require": ["strict", "full"]}})
    assert told["report"]["rung"] == "full"
    assert (told["said"], told["shared"]) == ("works\n", 0)


@pytest.mark.parametrize(
    "how", [pytest.param("no_idmap", marks=pytest.mark.root), "nested,covered_proc", "no_user"]
)
def test_narrowed_command_has_less(how: str) -> None:
    """Whoever the workspace belongs to on the disk, and wherever TMPDIR lies."""
    (told,) = start(how, {"policy": {"accept": ["write"]}})
    assert told["narrowed"] == "x\n", told


@pytest.mark.root
def test_directory_without_idmap_is_refused() -> None:
    (told,) = start("no_idmap", {"policy": {}, "root": "/mnt/merged/mine"})
    assert told["context"]["step"] == "idmap"
    assert "idmapped mounts" in told["refused"]


async def test_good_host_is_full() -> None:
    async with sandbox(Policy(require=("strict", "full"))) as session:
        report = session.confinement
        assert report is not None
        assert (report.rung, report.cause, report.fix) == ("full", "", "")
        assert {held.state for held in report.dimensions().values()} == {"enforced"}
        assert session.state.confinement == report.document()


async def test_policy_lifts_by_its_words(tmp_path: Path) -> None:
    policy = Policy(network="host", reads=(str(tmp_path),), require=("strict",))
    async with sandbox(policy) as session:
        report = session.confinement
        assert report is not None
        assert (report.network.state, report.network.chosen) == ("absent", True)
        assert (report.ipc.state, report.ipc.chosen) == ("partial", True)
        assert report.rung == "full"


@pytest.mark.root
def test_closed_place_is_refused(tmp_path: Path) -> None:
    """Root's commands run as somebody else, who has to get to their workspace."""
    tmp_path.chmod(0o700)
    (told,) = start("no_user", {"policy": {}, "temporary": str(tmp_path)})
    assert "Permission denied [landlock" in told["refused"]
    assert "chmod o+x" in told["refused"]


@pytest.mark.parametrize("how", ["as_it_is", "nested"])
def test_shortage_is_no_rung(how: str) -> None:
    """Too many processes say nothing of the machine: the start is refused, and the next one whole."""
    told = ask(how, "tests.ladder.passing")
    assert told["rungs"] == ["processes True", "full"]
