"""Seatbelt profiles: whole texts, and what their rules say of files, whatever the files are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard import ConfinementUnavailableError, Policy
from sandyard.confinement.seatbelt import (
    SANDBOX_EXEC,
    SeatbeltFacts,
    SeatbeltProfile,
    confined_command,
    plan_seatbelt,
)
from sandyard.confinement.seatbelt_holding import seatbelt_holding
from sandyard.confinement.seatbelt_tables import SERVICES, SYSTEM_TREES
from sandyard.platform import Toolchains
from tests.confinement.hosts import grant
from tests.confinement.seatbelt_reader import read_forms, read_profile

PROFILES = Path(__file__).with_name("profiles")
PLAIN = SeatbeltFacts(workspace="/Users/me/ws", home="/private/s/home", temporary="/private/s/tmp")
WHOLE = SeatbeltFacts(
    workspace="/Users/me/ws",
    owned=False,
    home="/private/s/home",
    temporary="/private/s/tmp",
    toolchains=Toolchains(
        roots=("/Users/me/.pyenv", "/Users/me/ws/.venv"),
        links=(("/opt/py", "/Users/me/.pyenv"),),
        masks=("/Users/me/.pyenv/pip.conf",),
    ),
    grants=(
        grant("/Users/me/out", writable=True),
        grant("/data", source="/Volumes/data"),
        grant("/Users/me/ws/vendor"),
        grant("/Users/me/ws/vendor/cache", writable=True),
    ),
    denied=("/Users/me/ws/a/secret", "/Volumes/data/keys"),
    protected=("/Users/me/ws/.git/hooks",),
)
ACCEPTING = Policy(accept=("network",))

CASES = {
    "plain": (Policy(), PLAIN),
    "whole": (Policy(network="host", syscalls=("no-unix-sockets",)), WHOLE),
    "accepting": (Policy(toolchains=False, home="workspace", accept=("network",)), WHOLE),
}


@pytest.mark.parametrize("name", CASES)
def test_profile_is_whole(name: str) -> None:
    profile = plan_seatbelt(*CASES[name])
    said = "".join(f"; {key}={value}\n" for key, value in profile.parameters)
    assert profile.text + said == (PROFILES / f"{name}.sb").read_text()


def test_rules_decide_by_depth() -> None:
    rules = read_profile(plan_seatbelt(Policy(), WHOLE))
    expected = {
        "/Users/me/ws/main.py": "rwx",
        "/Users/me/ws/.venv/bin/python": "rwx",  # a toolchain in the workspace is the workspace
        "/Users/me/ws/vendor/lib.py": "r-x",
        "/Users/me/ws/vendor/cache/lib.pyc": "rwx",
        "/Users/me/ws/.git/hooks/pre-commit": "r-x",
        "/Users/me/ws/.git/index": "rwx",
        "/Users/me/ws/a/secret/key": "---",
        "/Users/me/out/x": "rwx",
        "/Volumes/data/x": "r-x",
        "/Volumes/data/keys": "---",
        "/Users/me/.pyenv/bin/python": "r-x",
        "/Users/me/.pyenv/pip.conf": "---",
        "/Users/me/.ssh/id": "---",
        "/Users/me/workspace": "---",  # its name begins with the workspace's
        "/System/Volumes/Data/Users/me/.ssh/id": "---",  # the second name of every user's files
        "/private/s/home/.cache": "rwx",
        "/private/etc/master.passwd": "---",
        "/usr/bin/git": "r-x",
        "/dev/disk0": "---",
    }
    asked = (("r", "file-read-data"), ("w", "file-write-data"), ("x", "process-exec"))
    assert {
        path: "".join(sign if rules.allows(what, path) else "-" for sign, what in asked)
        for path in expected
    } == expected


def test_rules_keep_their_directories() -> None:
    rules = read_profile(plan_seatbelt(Policy(), WHOLE))
    moved = ("/Users/me/ws", "/Users/me/ws/.git", "/Users/me/ws/a", "/private/s/home")
    assert not any(rules.allows("file-write-unlink", path) for path in moved)
    assert all(rules.allows("file-write-unlink", f"{path}/new") for path in moved)
    assert not rules.allows("file-link", "/Users/me/ws/new")
    assert not rules.allows("file-write-setugid", "/Users/me/ws/new")


def test_private_home_is_unused() -> None:
    rules = read_profile(plan_seatbelt(Policy(home="workspace"), PLAIN))
    assert not rules.allows("file-read-data", "/private/s/home/x")


names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=()), min_size=1, max_size=9
)
awkward = st.sampled_from(
    ['"', '")(allow default)', "(", ";", "\n", "\\", 'é"\u202e', "(param", "=", "-p"]
)
paths = st.lists(names | awkward, min_size=1, max_size=3).map(
    lambda parts: "/Users/" + "/".join(f"{part}☂" for part in parts)
)


@given(*[paths] * 4, st.lists(paths, max_size=2))
def test_text_holds_no_names(ws: str, home: str, tmp: str, granted: str, denied: list[str]) -> None:
    facts = SeatbeltFacts(
        workspace=ws,
        home=home,
        temporary=tmp,
        grants=(grant(granted, writable=True),),
        denied=tuple(denied),
        protected=(f"{ws}/.git",),
        toolchains=Toolchains(roots=(granted,), masks=(f"{granted}/pip",)),
    )
    profile = plan_seatbelt(Policy(), facts)
    assert "☂" not in profile.text
    assert {form[0] for form in read_forms(profile.text)} == {"version", "deny", "allow"}
    rules = read_profile(profile)
    for path in denied:
        assert not rules.allows("file-read-data", path)
        assert not rules.allows("file-write-create", f"{path}/x")
    assert not rules.allows("file-write-data", f"{ws}/.git/config")
    words = confined_command(profile, ["-x", "(allow default)"])
    assert words[0] == SANDBOX_EXEC
    assert words[-4:] == (profile.text, "--", "-x", "(allow default)")


def test_services_start_nothing() -> None:
    doors = ("launch", "appleevent", "SecurityServer", "pasteboard", "windowserver", "tccd", "lsd")
    for service in SERVICES:
        assert service.reason
        assert not any(door in service.name for door in doors)
    assert all(each.reason for each in SYSTEM_TREES)


@pytest.mark.parametrize("policy", [Policy(devices=("gpu",)), Policy(syscalls=("ptrace",))])
def test_refuses_what_is_impossible(policy: Policy) -> None:
    with pytest.raises(ConfinementUnavailableError):
        plan_seatbelt(policy, PLAIN)


def network_rules(profile: SeatbeltProfile) -> list[str]:
    return [line for line in profile.text.splitlines() if "network" in line and " ip " in line]


def test_loopback_is_shared_knowingly() -> None:
    closed, opened = plan_seatbelt(Policy(), PLAIN), plan_seatbelt(ACCEPTING, PLAIN)
    assert network_rules(closed) == []
    assert all('ip "localhost:*"' in line for line in network_rules(opened))
    assert len(network_rules(opened)) == 2
    assert seatbelt_holding(Policy(), PLAIN)["network"].state == "enforced"
    assert seatbelt_holding(ACCEPTING, PLAIN)["network"].state == "partial"


def states(policy: Policy, facts: SeatbeltFacts) -> dict[str, str]:
    return {name: held.state for name, held in seatbelt_holding(policy, facts).items()}


def test_says_what_is_lost() -> None:
    lost = {"processes": "partial", "syscalls": "absent", "resources": "partial", "ipc": "partial"}
    held = {"read": "partial", "write": "enforced", "network": "enforced"}
    assert states(Policy(), PLAIN) == lost | held
    given = {"read": "partial", "write": "partial", "network": "absent"}
    assert states(Policy(network="host"), WHOLE) == lost | given
    every = seatbelt_holding(Policy(), WHOLE)
    assert all(held.why for held in every.values() if held.state != "enforced")
    assert "Unix sockets" in every["ipc"].why
    assert "Unix sockets" not in seatbelt_holding(Policy(), PLAIN)["ipc"].why
    # What is more than metadata starts no session, unless it is accepted by name.
    assert {name for name, held in every.items() if held.slight} == {"resources"}
