"""Any policy by any path: what is told is what the rules of the policy's own page say, and no more."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandyard import Policy
from sandyard.confinement import plan_session
from sandyard.confinement.explaining import explain_path
from sandyard.confinement.explanation import Enforced, Found
from sandyard.plan import Bind, Deny, MountStep, Private
from sandyard.platform import is_beneath, is_within
from tests.confinement.hosts import DEBIAN_ROOT, HOSTS, WORKSPACE, grant
from tests.explain.test_grants import apply_grant

NAMES = ("a", "b", "ab", "c")
PLACES = ("/srv", WORKSPACE.path, "/tmp/other", "/usr/local/x", "/home/me")
PATHS = [
    "/".join((place, *names))
    for place in PLACES
    for length in (1, 2, 3)
    for names in itertools.product(NAMES, repeat=length)
]
some_paths = st.lists(st.sampled_from(PATHS), max_size=4).map(tuple)


def enforce(policy: Policy) -> Enforced:
    """What a session on a made-up host would enforce."""
    paths = dict.fromkeys((*policy.reads, *policy.writes))
    grants = tuple(grant(path, writable=path in policy.writes) for path in paths)
    plan = plan_session(policy, DEBIAN_ROOT, WORKSPACE, grants, policy.deny)
    return Enforced(policy, plan, DEBIAN_ROOT.machine, WORKSPACE.path, grants, policy.deny)


def access_by_rules(policy: Policy, path: str) -> str:
    """By the words of ``Policy``: deny wins, then the deeper of two nested paths."""

    def is_denied(tree: str) -> bool:
        return any(is_within(tree, denied) for denied in policy.deny)

    shown = {"/usr": "read", WORKSPACE.path: "write", "/tmp": "write"}
    shown |= dict.fromkeys(policy.reads, "read") | dict.fromkeys(policy.writes, "write")
    led = {tree for tree in shown if not is_denied(tree)}
    around = max((tree for tree in led if is_within(path, tree)), key=len, default="")
    if around not in {"", "/tmp"}:
        return "none" if is_denied(path) else shown[around]
    if any(is_beneath(tree, path) for tree in led) and path != "/tmp":
        return "read"
    # As root, what leads to other things in /tmp is not the agent's; the rest is the session's own.
    top = "/".join(path.split("/")[:3])
    return "write" if around and not any(is_beneath(tree, top) for tree in led) else "none"


@settings(max_examples=300)
@given(reads=some_paths, writes=some_paths, deny=some_paths, data=st.data())
def test_rules_decide(
    reads: tuple[str, ...], writes: tuple[str, ...], deny: tuple[str, ...], data: st.DataObject
) -> None:
    policy = Policy(reads=reads, writes=writes, deny=deny)
    enforced = enforce(policy)
    for path in data.draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=30)):
        told = explain_path(path, enforced)
        assert told.access == access_by_rules(policy, path), (path, told)


def access_by_steps(enforced: Enforced, path: str) -> str | None:
    """By the mounts alone, carried out one after the other: the last one that covers a path."""
    covering: MountStep | None = None
    for step in enforced.plan.steps:
        if isinstance(step, (Bind, Deny, Private)):
            at = step.path if isinstance(step, Private) else step.target
            covering = step if is_within(path, at) else covering
    match covering:
        case Bind():
            return "write" if covering.writable else "read"
        case Deny():
            return "none"
        case _:
            return None


@settings(max_examples=200)
@given(reads=some_paths, writes=some_paths, deny=some_paths, data=st.data())
def test_last_mount_decides(
    reads: tuple[str, ...], writes: tuple[str, ...], deny: tuple[str, ...], data: st.DataObject
) -> None:
    enforced = enforce(Policy(reads=reads, writes=writes, deny=deny))
    for path in data.draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=30)):
        wanted = access_by_steps(enforced, path)
        assert wanted is None or explain_path(path, enforced).access == wanted


ORDER = ("none", "read", "write")


@settings(max_examples=200)
@given(reads=some_paths, writes=some_paths, deny=some_paths, data=st.data())
def test_grant_gives_more_and_only_there(
    reads: tuple[str, ...], writes: tuple[str, ...], deny: tuple[str, ...], data: st.DataObject
) -> None:
    policy = Policy(reads=reads, writes=writes, deny=deny)
    enforced = enforce(policy)
    path = data.draw(st.sampled_from(PATHS))
    before = explain_path(path, enforced)
    if before.grant is None:
        return
    granted = enforce(apply_grant(policy, before.grant))
    after = explain_path(path, granted)
    assert ORDER.index(after.access) > ORDER.index(before.access) or (
        # What only led to other things was readable already; now it shows what it holds.
        "only what leads" in before.rule and "Policy.reads names" in after.rule
    )
    for other in data.draw(st.lists(st.sampled_from(PATHS), max_size=20)):
        if not is_within(other, path) and not is_within(path, other):
            told, now = explain_path(other, enforced), explain_path(other, granted)
            # What leads to the grant may now be seen; in /tmp it then belongs to no one inside.
            assert now.access == told.access or other.startswith("/tmp/other"), (other, told, now)


@given(st.text(alphabet="/.ab\0\n\u20ac", max_size=30))
def test_any_text_is_explained(path: str) -> None:
    for host in HOSTS:
        plan = plan_session(Policy(), host, WORKSPACE, ())
        enforced = Enforced(Policy(), plan, host.machine, WORKSPACE.path)
        for entry in (False, True):
            told = explain_path(path, enforced, entry=entry)
            assert told.access in ORDER
            assert told.rule


LINKS = {
    "/srv/a/loop": "loop",
    "/srv/a/up": "../b",
    "/srv/a/out": "/home/me",
    "/srv/a/x": "./b//ab/",
}


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("/srv/a/up/c", "/srv/b/c"),
        ("/srv/a/out/c", "/home/me/c"),
        ("/srv/a/x/c", "/srv/a/b/ab/c"),
        ("/srv/a/x/../c", "/srv/a/b/c"),
        ("/srv/a/loop/c", "/srv/a/loop"),
        ("/bin/sh", "/usr/bin/sh"),
        ("/opt/py/bin/x", "/root/.pyenv/bin/x"),
        ("/var/run/x", "/run/x"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/proc/self/root/srv/a/up/c", "/srv/b/c"),
        ("/srv/a/gone/../c", "/srv/a/gone"),
    ],
)
def test_symlinks_are_followed(path: str, real: str) -> None:
    def look(source: str, below: str) -> Found:
        at = f"{source}/{below}".rstrip("/")
        return Found(link=LINKS.get(at), exists="gone" not in at)

    told = explain_path(path, enforce(Policy(reads=("/srv/a",))), look=look)
    assert told.rule.startswith(f"leads to {real}: ") or (
        told.subject == real and "circle" in told.rule
    )


def test_policy_of_caller_is_not_touched() -> None:
    policy = Policy(reads=("/srv/a",))
    before = dataclasses.asdict(policy)
    enforced = enforce(policy)
    steps = dict(enforced.steps)
    explain_path("/home/me", enforced)
    assert (dataclasses.asdict(policy), enforced.steps) == (before, steps)
