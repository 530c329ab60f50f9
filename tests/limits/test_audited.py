"""What Landlock alone refuses, as a real kernel's audit tells it, in an emulated machine; and nothing without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.limits.emulator import find_emulator, run_guest

pytestmark = [pytest.mark.soak, pytest.mark.timeout(2000)]

ODD = 'odd "name" path="x"\n'


def boot(factory: pytest.TempPathFactory, options: str) -> dict[str, Any]:
    emulator = find_emulator(late=True)
    if emulator is None:
        pytest.skip(
            "needs an emulator and a late kernel (see emulator.py and scripts/with-machine)"
        )
    script = Path(__file__).with_name("guest_audit.py")
    answers = run_guest(script, factory.mktemp("machine"), emulator, options=options)
    assert "error" not in answers, answers["error"]
    return answers


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return boot(tmp_path_factory, "audit=1")


@pytest.fixture(scope="module")
def unaudited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return boot(tmp_path_factory, "")


def narrowed(path: str, operation: str) -> list[object]:
    rule = "read-only: Narrowing.writes does not name it"
    return [path, operation, "EACCES", rule, f"Narrowing(writes=({path!r},))"]


@pytest.mark.parametrize(("where", "rung"), [("full", "full"), ("bare", "landlock_seccomp")])
def test_quiet_program_is_told(audited: dict[str, Any], where: str, rung: str) -> None:
    answers = audited[where]
    root = answers["root"]
    assert (audited["standing"], answers["rung"]) == ("read", rung)
    for name, path, operation in (
        ("made", root, "create"),
        ("written", f"{root}/kept", "write"),
        ("odd", f"{root}/{ODD}", "write"),
    ):
        code, denials, said, _ = answers[name]
        assert (code, denials, said) == (13, [narrowed(path, operation)], "")
    assert answers["allowed"][:2] == [0, []]
    assert answers["missing"][:2] == [2, []]
    assert [each[0] for each in answers["worded"]] == [f"{root}/kept"]  # told twice, said once


def test_lower_rung_is_told(audited: dict[str, Any]) -> None:
    code, denials, said, _ = audited["bare"]["outside"]
    rule, grant = "not shown: no rule of the policy names it", "Policy(reads=('/root/secret',))"
    assert (code, said) == (13, "")
    assert denials == [["/root/secret", "read", "EACCES", rule, grant]]
    assert audited["full"]["outside"][:2] == [2, []]  # the mounts hide it: Landlock is not asked


def test_flood_does_not_hold_the_loop(audited: dict[str, Any]) -> None:
    assert audited["bare"]["late"] < 1


def test_nothing_stays_open(audited: dict[str, Any]) -> None:
    assert set(audited["open"]) == {"/dev/ttyS0"}


@pytest.mark.parametrize("where", ["full", "bare"])
def test_without_audit_nothing_is_told(unaudited: dict[str, Any], where: str) -> None:
    answers = unaudited[where]
    assert unaudited["standing"] == "off"
    for name in ("made", "written", "odd"):
        assert answers[name][:3] == [13, [], ""]
    assert [each[0] for each in answers["worded"]] == [f"{answers['root']}/kept"]
