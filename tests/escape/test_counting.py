"""The table of attempts says what became of them, and of nothing else."""

from __future__ import annotations

from tests.escape.counting import Count, count_attempts, table


def test_attempts_are_counted_by_kind() -> None:
    attack, work = (
        "tests/escape/test_attacks.py::test_attack",
        "tests/escape/test_work.py::test_work",
    )
    counts, done = count_attempts([
        (f"{attack}[reading-home]", "passed"),
        (f"{attack}[reading-shadow]", "skipped"),
        (f"{attack}[writing-home-again]", "failed"),
        (f"{work}[git]", "passed"),
        (f"{work}[java]", "skipped"),
        ("tests/escape/test_attacks.py::test_work_after_attacks[reading]", "passed"),
        ("tests/escape/test_files.py::test_attack_of_files[reading-x]", "passed"),
    ])  # fmt: skip
    assert counts == {"reading": Count(2, 2, 1), "writing": Count(1, 0, 0)}
    assert list(table(counts, done))[2:] == [
        "| reading | 2 | 2 | 1 |",
        "| writing | 1 | 0 | 0 |",
        "| all | 3 | 2 | 1 |",
        "| honest work | 1 programs worked | | |",
    ]
