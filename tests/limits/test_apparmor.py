"""The AppArmor profile that the doctor prints, loaded by a real kernel in an emulated machine.

Ubuntu's setting, by which user namespaces are kept from programs without a profile, is none of stock
kernels: everybody is confined by a profile there that refuses them. All else is as it is with the setting.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.limits.emulator import apparmor, find_emulator, run_guest

pytestmark = [pytest.mark.soak, pytest.mark.timeout(2000)]

SCRIPT = Path(__file__).with_name("guest_apparmor.py")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    emulator, more = find_emulator(late=True), apparmor()
    if emulator is None or more is None:
        pytest.skip("needs an emulator, a late kernel and AppArmor's parser (scripts/with-machine)")
    answers = run_guest(SCRIPT, tmp_path_factory.mktemp("machine"), emulator, more=more)
    assert "error" not in answers, answers["error"]
    for step in ("restricted", "told", "profiled"):
        assert "error" not in answers[step], answers[step]["error"]
    assert "userns_create" in answers["kernel"]
    assert answers["people"][1] == 0, answers["people"]
    return answers


def test_without_profile_rung_is_lower(told: dict[str, Any]) -> None:
    answers = told["restricted"]
    assert (answers["holds"], answers["doctor"]) == (False, "landlock_seccomp")
    assert "user_namespace: " in answers["lacks"]
    assert "[namespaces, errno 13]" in answers["lacks"]
    assert "by an AppArmor profile that grants 'userns'" in answers["default"]  # the typed error
    assert answers["lower"] == "landlock_seccomp"
    assert answers["other"] == 1


def test_printed_profile_gives_the_highest_rung(told: dict[str, Any]) -> None:
    assert told["loaded"][1] == 0, told["loaded"]
    answers = told["profiled"]
    assert (answers["holds"], answers["doctor"]) == (True, "full")
    assert (answers["default"], answers["lower"]) == ("full", "full")
    assert answers["default says"] == "1000\nsandyard-init (unconfined)\n"


def test_profile_opens_nothing_else(told: dict[str, Any]) -> None:
    assert told["profiled"]["other"] == 1
