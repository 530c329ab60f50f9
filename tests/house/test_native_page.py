"""The page of the native program names each of its files and each message, and nothing that is gone."""

from __future__ import annotations

import re

import pytest

from tests.house.sources import ROOT

NATIVE = ROOT / "native"
PAGE = (NATIVE / "README.md").read_text(encoding="utf-8")
FILES = {path.name for path in NATIVE.glob("*.[ch]")}


def find_files(text: str) -> set[str]:
    """The C files that a text names."""
    return set(re.findall(r"`(\w+\.[ch])`", text))


def section(title: str) -> str:
    """What stands under a heading of the page."""
    _, _, rest = PAGE.partition(f"## {title}\n")
    assert rest, title
    return rest.partition("\n## ")[0]


def test_each_file_has_promise() -> None:
    told = section("What each file promises, in the order in which the kernel sees it")
    assert find_files(told) == FILES


def test_audit_reads_each_file() -> None:
    assert find_files(section("How to audit it in an hour")) == FILES


@pytest.mark.parametrize("kind", ["REQUEST", "EVENT"])
def test_each_message_is_told(kind: str) -> None:
    known = re.findall(rf"\b{kind}_(\w+) = \d+,", (NATIVE / "protocol.h").read_text("utf-8"))
    told = {word.strip("`") for word in re.findall(r"`[A-Z_]+`", section("The protocol in short"))}
    shorter = {name.removesuffix("_MADE") for name in known}  # one name for order and answer
    assert len(known) > 5
    assert shorter <= told
