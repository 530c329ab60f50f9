"""The pages name what exists: files behind links, and every public name in the reference."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import sandyard
from tests.docs.pages import LINK, PAGES, ROOT


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_names_no_other_place(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"/work\b|promises\.md|shared/design", text)


def test_reference_has_every_name() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    found = re.findall(r"^### (\w+)$", text, re.MULTILINE)
    assert sorted(found) == sorted(sandyard.__all__)


@pytest.mark.parametrize("script", ["reference.py", "errorlist.py"])
def test_written_page_is_up_to_date(script: str) -> None:
    program = ROOT / "scripts" / script
    done = subprocess.run([sys.executable, program, "--check"], check=False)
    assert done.returncode == 0, f"run scripts/{script}"
