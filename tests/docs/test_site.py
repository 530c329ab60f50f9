"""The documentation's site is built without a warning, and has every page and every public name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import sandyard
from tests.docs.pages import PAGES, ROOT

SCRIPT = ROOT / "scripts" / "site.py"
HOME = "UnixLocalSandboxClient"


def build(site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, site],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.mark.timeout(180)
def test_site_is_whole(tmp_path: Path) -> None:
    done = build(tmp_path / "site")
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {page.parent.relative_to(tmp_path / "site") for page in tmp_path.rglob("index.html")}
    docs = ROOT / "docs"
    wanted = {page.relative_to(docs).with_suffix("") for page in PAGES if docs in page.parents}
    assert wanted <= pages
    reference = "".join(page.read_text() for page in (tmp_path / "site/reference").rglob("*.html"))
    anchors = set(re.findall(r'id="sandyard\.(\w+)"', reference))
    assert set(sandyard.__all__) <= anchors
    assert f'id="sandyard.{HOME}.create"' in reference


def test_navigation_has_every_page() -> None:
    named = set(re.findall(r'"([\w/-]+\.md)"', (ROOT / "docs" / "zensical.toml").read_text()))
    docs = ROOT / "docs"
    assert {page.relative_to(docs).as_posix() for page in PAGES if docs in page.parents} <= named
