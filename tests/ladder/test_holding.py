"""What holds for a policy on a rung, and what is enough: values in, values out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sandyard import ConfinementUnavailableError, EnforcedLimit, Policy, PolicyError
from sandyard.confinement.footing import Footing, Held
from sandyard.confinement.holding import (
    Circumstances,
    check_enough,
    check_given,
    report_holding,
)
from sandyard.platform import Grant
from sandyard.policy import RUNGS, Rung
from tests.confinement.hosts import DEBIAN_ROOT as HOST

BARE = Footing("landlock_seccomp", cause="no namespaces", fix="allow them")
FULL = Footing()
USER = replace(HOST, euid=1000, landlock_abi=7)
ROOT = replace(USER, euid=0)
WORK = Circumstances(USER, "/w", owned=True)
WRITES = Grant("/srv/out", "/srv/out", True, (1, 1))
READS = Grant("/srv/in", "/srv/in", False, (1, 2))


def holds(
    footing: Footing = FULL, policy: Policy | None = None, **changes: object
) -> dict[str, Held]:
    circumstances = replace(WORK, **changes)  # type: ignore[arg-type]
    report = report_holding(policy or Policy(), circumstances, footing)
    return {str(name): held for name, held in report.dimensions().items()}


def lost(
    footing: Footing = FULL, policy: Policy | None = None, **changes: object
) -> dict[str, str]:
    found = holds(footing, policy, **changes)
    return {name: held.state for name, held in found.items() if held.state != "enforced"}


def test_full_holds_all() -> None:
    assert lost() == {}
    assert lost(Footing("full_without_proc")) == {}


def test_what_policy_lifts_is_its_own() -> None:
    found = holds(policy=Policy(network="host"))
    assert (found["network"].state, found["network"].chosen) == ("absent", True)
    assert lost(grants=(READS,)) == {"ipc": "partial"}
    assert lost(owned=False) == {"ipc": "partial"}
    assert lost(policy=Policy(syscalls=("no-unix-sockets",)), owned=False) == {}


def test_bare_loses_by_user_and_kernel() -> None:
    usual = {"read": "partial", "processes": "partial", "resources": "partial"}
    assert lost(BARE, facts=ROOT) == usual
    assert lost(BARE, facts=USER) == usual | {"write": "partial"}
    older = replace(USER, landlock_abi=5)
    assert lost(BARE, facts=older) == usual | {"write": "partial", "processes": "absent"}
    assert lost(BARE, facts=replace(ROOT, landlock_abi=1)) == usual


def test_bare_ipc_is_closed() -> None:
    # All Unix sockets are refused there, those in granted directories among them.
    assert "ipc" not in lost(BARE, owned=False, grants=(READS,))


def test_bare_keeps_no_parts() -> None:
    part = Grant("/w/tests", "/w/tests", False, (1, 3))
    for changes in ({"grants": (part,)}, {"protected": ("/w/.git/hooks",)}):
        found = holds(BARE, facts=ROOT, **changes)
        assert (found["write"].state, found["write"].slight) == ("partial", False), changes
    found = holds(BARE, facts=ROOT, denied=("/w/key",))
    assert (found["read"].state, found["read"].slight) == ("partial", False)
    # Beside writable trees all of it holds.
    assert "write" not in lost(
        BARE, facts=ROOT, grants=(READS,), protected=(), denied=("/srv/in/x",)
    )


def test_weak_limit_is_slight() -> None:
    weak = EnforcedLimit(
        limit="memory", value=1, by="x", scope="process", strength="partial", why="each alone"
    )
    found = holds(limits=(weak,))["resources"]
    assert (found.state, found.why, found.slight) == ("partial", "memory: each alone", True)


# --- is it enough ---------------------------------------------------------------------------------

REPORT = report_holding(Policy(), WORK)
SLIGHT, GRAVE = Held("partial", "a", slight=True), Held("partial", "b")
CHOSEN, ABSENT = Held("absent", "c", chosen=True), Held("absent", "d")


@pytest.mark.parametrize(
    ("policy", "enough"),
    [
        (Policy(), {SLIGHT, CHOSEN}),
        (Policy(require=("strict",)), {CHOSEN}),
        (Policy(require=("read",)), set[Held]()),
        (Policy(require=("write",)), {SLIGHT, CHOSEN}),
        (Policy(accept=("read",)), {SLIGHT, GRAVE, CHOSEN, ABSENT}),
        (Policy(accept=("read",), require=("strict",)), {SLIGHT, GRAVE, CHOSEN, ABSENT}),
        (Policy(accept=("write",)), {SLIGHT, CHOSEN}),
    ],
)
def test_enough_is_by_words(policy: Policy, enough: set[Held]) -> None:
    for held in (SLIGHT, GRAVE, CHOSEN, ABSENT):
        report = replace(REPORT, read=held)
        if held in enough:
            check_enough(policy, report)
            continue
        with pytest.raises(ConfinementUnavailableError, match="To fix it") as caught:
            check_enough(policy, report)
        assert caught.value.context["dimension"] == "read"
        assert caught.value.context["state"] == held.state
        assert held.why in caught.value.message


@pytest.mark.parametrize("rung", RUNGS)
def test_rung_or_better(rung: Rung) -> None:
    for actual in RUNGS:
        report = replace(REPORT, rung=actual, cause="it was refused", fix="allow it")
        policy = Policy(require=(rung,))
        if RUNGS.index(actual) <= RUNGS.index(rung):
            check_enough(policy, report)
            continue
        with pytest.raises(
            ConfinementUnavailableError, match=r"it was refused\. To fix it: allow it"
        ):
            check_enough(policy, report)


def test_root_gives_only_its_own() -> None:
    own = replace(WORK, facts=ROOT)
    check_given(own, BARE)
    check_given(replace(own, grants=(READS,)), BARE)
    check_given(replace(own, owned=False), FULL)
    check_given(replace(own, owned=False, facts=USER), BARE)
    for theirs in (replace(own, owned=False), replace(own, grants=(WRITES,))):
        with pytest.raises(ConfinementUnavailableError, match="no namespaces"):
            check_given(theirs, BARE)


@pytest.mark.parametrize(
    "wrong",
    [
        {"require": ("everything",)},
        {"require": "strict"},
        {"accept": ("strict",)},
        {"accept": ("full",)},
        {"require": ("read",), "accept": ("read",)},
        {"require": ("network",), "network": "host"},
    ],
)
def test_impossible_words_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(PolicyError):
        Policy(**wrong)  # type: ignore[arg-type]


def test_words_have_one_order() -> None:
    assert Policy(require=("write", "full", "read", "write")).require == ("full", "read", "write")
    assert Policy(accept=("write", "read")) == Policy(accept=("read", "write"))
