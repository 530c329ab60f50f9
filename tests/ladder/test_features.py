"""Each feature of a session works on a rung, or is refused there, as the guide's table says."""

from __future__ import annotations

from typing import Final

import pytest

from sandyard.policy import RUNGS
from tests.house.sources import ROOT
from tests.ladder.features import FEATURES
from tests.ladder.hosts import Host, ask

GUIDE: Final = ROOT / "docs" / "guides" / "confinement.md"
HEAD: Final = "| | " + " | ".join(f"`{rung}`" for rung in RUNGS) + " |"
REFUSED: Final = "confinement_unavailable: there are no {} in this session: "

TERMINALS: Final = ("terminals", "start_process")
OTHERS: Final = {
    "mounts": ("mounts", "LocalDir"),
    "ports": ("ports", 'Policy(network="host")'),
}

HOSTS: Final = (
    Host("nested", "full", ""),
    Host("nested,covered_proc", "full_without_proc", ""),
    Host("nested,no_user", "landlock_seccomp", ""),
    Host("container", "landlock_seccomp", ""),
)


def read_table() -> dict[str, dict[str, str]]:
    """What the guide says of each feature, by rung."""
    _, _, text = GUIDE.read_text(encoding="utf-8").partition(HEAD + "\n")
    rows, _, _ = text.partition("\n\n")
    table: dict[str, dict[str, str]] = {}
    for line in rows.splitlines()[1:]:
        name, *says = line.strip("| ").split(" | ")
        table[name] = dict(zip(map(str, RUNGS), says, strict=True))
    return table


def test_table_names_what_is_tried() -> None:
    assert list(read_table()) == list(FEATURES)


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.how)
def test_features_are_as_told(host: Host) -> None:
    told = ask(host.how, "tests.ladder.features")
    assert told["rung"] == host.rung
    table = read_table()
    for row, came in told["came"].items():
        expected = table[row][host.rung]
        for name, outcome in came.items():
            if expected == "works":
                assert outcome == "", name
            else:
                assert expected == "refused"
                what, instead = OTHERS.get(name, TERMINALS)
                assert outcome.startswith(REFUSED.format(what)), (name, outcome)
                assert "To fix it: " in outcome
                assert instead in outcome
    assert told["terminals"] == (host.rung != "landlock_seccomp")
