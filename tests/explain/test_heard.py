"""What the audit tells becomes denials: only what the policy denies, once, after what the command said itself."""

from __future__ import annotations

import pytest

from sandyard import Denial, Policy
from sandyard.confinement import plan_session
from sandyard.confinement.explanation import Enforced
from sandyard.explaining.audit_records import Refusal
from sandyard.explaining.denials import DENIALS_MOST, find_denials
from tests.confinement.hosts import DEBIAN_ROOT, WORKSPACE

POLICY = Policy()
ENFORCED = Enforced(
    POLICY, plan_session(POLICY, DEBIAN_ROOT, WORKSPACE, ()), "x86_64", WORKSPACE.path
)


def refused(path: str | None, *blockers: str) -> Refusal:
    return Refusal(1, 100.0, blockers or ("fs.read_file",), path)


def denials(*heard: Refusal, stderr: bytes = b"") -> tuple[Denial, ...]:
    return find_denials(stderr, b"", ENFORCED, WORKSPACE.path.encode(), (), heard)


@pytest.mark.parametrize(
    ("blockers", "operation", "error"),
    [
        (("fs.read_file",), "read", "EACCES"),
        (("fs.read_dir",), "read", "EACCES"),
        (("fs.execute",), None, "EACCES"),
        (("fs.execute", "fs.read_file"), "read", "EACCES"),
        (("fs.write_file", "fs.truncate"), "write", "EACCES"),
        (("fs.make_reg", "fs.refer"), "create", "EACCES"),
        (("fs.make_sock",), "create", "EACCES"),
        (("fs.remove_dir",), "remove", "EACCES"),
        (("fs.refer",), "move", "EXDEV"),
        (("fs.unheard_of",), None, "EACCES"),
    ],
)
def test_right_tells_what_was_tried(
    blockers: tuple[str, ...], operation: str | None, error: str
) -> None:
    (told,) = denials(refused("/srv/data", *blockers))
    assert (told.kind, told.subject, told.operation, told.error) == (
        "path",
        "/srv/data",
        operation,
        error,
    )
    assert told.rule == "not shown: no rule of the policy names it"
    assert told.grant is not None


def test_only_what_the_policy_denies_is_told() -> None:
    """A program may have added a domain of its own, which refuses what the session allows."""
    inside = f"{WORKSPACE.path}/file"
    assert denials(refused(inside), refused(inside, "fs.write_file"), refused(None)) == ()
    assert denials(refused("/usr/lib/x"), refused("/usr", "fs.execute")) == ()
    assert [each.subject for each in denials(refused("/usr/lib", "fs.make_reg"))] == ["/usr/lib"]


def test_what_was_said_is_not_told_again() -> None:
    said = b"cat: /srv/data: Permission denied\ntouch: cannot touch '/usr/lib/new': Permission denied\n"
    told = denials(
        refused("/srv/data"),
        refused("/usr/lib", "fs.make_reg"),
        refused("/srv/more"),
        refused("/srv/more", "fs.write_file"),
        stderr=said,
    )
    assert [each.subject for each in told] == ["/srv/data", "/usr/lib/new", "/srv/more"]


def test_they_are_few() -> None:
    assert len(denials(*(refused(f"/srv/{number}") for number in range(64)))) == DENIALS_MOST
