"""Accounts: which numbers users and groups get, and which names they can't have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sandyard import Group, ManifestError, User
from sandyard.accounts import ACCOUNTS_MOST, ONLY_AGENT, Account, Accounts, accounts_of


def users(*names: str) -> list[User]:
    return [User(name=name) for name in names]


def group(name: str, *members: str) -> Group:
    return Group(name=name, users=users(*members))


def test_users_come_before_groups() -> None:
    found = accounts_of(
        users("b", "a", "b"),
        [group("team", "agent", "c", "a", "a"), group("none"), group("two", "a")],
    )
    assert found == Accounts(
        (
            Account("agent", 0, (4,)),
            Account("b", 1),
            Account("a", 2, (4, 6)),
            Account("c", 3, (4,)),
        ),
        (("team", 4), ("none", 5), ("two", 6)),
    )
    assert found.further == 6
    assert found.members(4) == ("agent", "a", "c")
    known = replace(found, first=70_000)
    assert known.disk_id(1) == 70_000
    assert known.disk_names() == {
        70_000: "b", 70_001: "a", 70_002: "c", 70_003: "team", 70_004: "none", 70_005: "two",
    }  # fmt: skip
    assert found.user("c") == Account("c", 3, (4,))
    assert found.user("team") is None


def test_agent_is_there_anyway() -> None:
    assert accounts_of(users("agent", "agent"), []) is ONLY_AGENT
    assert ONLY_AGENT.further == 0


@pytest.mark.parametrize(
    "name",
    [
        "",
        "root",
        "nobody",
        "nogroup",
        "a:b",
        "a\nb",
        "a b",
        "-a",
        "1a",
        "é",
        "a/b",
        "a\0",
        "a" * 33,
        ".",
    ],
)
def test_name_that_nobody_can_have(name: str) -> None:
    with pytest.raises(ManifestError) as caught:
        accounts_of(users(name), [])
    assert caught.value.context["field"] == "users"
    for wrong in (group(name), group("fine", name)):
        with pytest.raises(ManifestError) as caught:
            accounts_of([], [wrong])
        assert caught.value.context["field"] == "groups"


@pytest.mark.parametrize("name", ["_", "a" * 32, "Mixed.Case_9-x", "www-data"])
def test_name_that_is_fine(name: str) -> None:
    found = accounts_of(users(name), []).user(name)
    assert found is not None
    assert found.home == f"/home/{name}"


@pytest.mark.parametrize(
    "groups", [[group("agent")], [group("one")], [group("x", "x")], [group("x"), group("x")]]
)
def test_group_name_that_is_taken(groups: list[Group]) -> None:
    with pytest.raises(ManifestError, match="choose another name") as caught:
        accounts_of(users("one"), groups)
    assert caught.value.context["field"] == "groups"


def test_number_of_them_is_bounded() -> None:
    most = users(*(f"u{n}" for n in range(ACCOUNTS_MOST)))
    assert accounts_of(most, []).further == ACCOUNTS_MOST
    with pytest.raises(ManifestError, match="64"):
        accounts_of(most, [group("one")])
