"""On each rung what is explained is what the kernel does there, and what it refuses is told."""

from __future__ import annotations

from typing import Final

import pytest

from tests.ladder.hosts import Host, ask

HOSTS: Final = (
    Host("nested", "full", ""),
    Host("nested,covered_proc", "full_without_proc", ""),
    Host("nested,no_user", "landlock_seccomp", ""),
    Host("no_user", "landlock_seccomp", ""),
    Host("nested,listened", "full", ""),
)
NETWORKS: Final = {"full": ("none",), "full_without_proc": ("none",)}


def told_on(host: Host, network: str) -> dict[str, object]:
    """What is explained, after it was compared with what the kernel did."""
    told = ask(host.how, "tests.ladder.explained", {"network": network})
    assert told["rung"] == host.rung
    rules = {name: f"refused with {error}" for name, error in told["tried"].items()}
    assert len(rules) > 40
    assert rules == {name: told["rules"][name] for name in rules}
    return told


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.how)
def test_explained_by_its_rung(host: Host) -> None:
    told = told_on(host, "none")
    access, addresses = told["access"], told["addresses"]
    assert isinstance(access, dict)
    assert isinstance(addresses, dict)
    bare = host.rung == "landlock_seccomp"
    assert access["socket"] == ("none" if bare else "read")
    assert access["msgget" if "msgget" in access else "semget"] == ("none" if bare else "write")
    assert ("no socket can be made" in addresses["127.0.0.1:80"]) == bare
    assert "Policy(network='host')" in addresses["example.org:443"]
    # Silently, five times: only the kernel can have told.
    assert told["code"] == 3
    if "listened" in host.how:
        assert (told["refused"], told["denials"]) == (0, [])
        return
    assert told["refused"] == 5
    assert told["denials"] == [
        {
            "kind": "syscall",
            "subject": "mount",
            "error": "EPERM",
            "rule": "refused with EPERM",
            "operation": None,
            "grant": None,
            "program": "python3",
            "times": 5,
        }
    ]


def test_sockets_of_a_bare_rung() -> None:
    told = told_on(Host("nested,no_user", "landlock_seccomp", ""), "host")
    rules = told["rules"]
    assert isinstance(rules, dict)
    assert "other than IPv4, IPv6 and routing netlink" in rules["socket"]
