#!/usr/bin/env python3
"""Builds the documentation's site: pages of this checkout, and the reference from its docstrings.

scripts/site.py [DIRECTORY]    writes the site there (build/site)

The pages are the files that a reader of the checkout sees; only links that leave `docs/` are turned.
Any warning, such as a link that leads nowhere, ends it with 1.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from reference import CHAPTERS, belongs

import sandyard

TOP = Path(__file__).resolve().parents[1]
CONFIG = TOP / "docs" / "zensical.toml"
LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)]*)?\))")

OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""Pages outside of docs/, and what they are called on the site."""


def place_of(target: Path) -> str | None:
    """Where the site has a file of the checkout; None for what it has not."""
    name = target.relative_to(TOP).as_posix()
    if name in OUTSIDE:
        return OUTSIDE[name]
    return name.removeprefix("docs/") if name.startswith("docs/") else None


def turn_links(text: str, source: Path, place: str) -> str:
    """A page's links, turned to where the site has what they name; else the words alone."""
    up = "../" * place.count("/")

    def turn(found: re.Match[str]) -> str:
        target = place_of((source.parent / found[2]).resolve())
        if target is None:
            raise SystemExit(f"{source.relative_to(TOP)}: the site has no {found[2]}")
        return f"{found[1]}{up}{target}{found[3]}"

    return LINK.sub(turn, text)


def write_pages(pages: Path) -> None:
    """The pages of the checkout."""
    for name, place in OUTSIDE.items():
        source = TOP / name
        (pages / place).write_text(turn_links(source.read_text(), source, place))
    for source in sorted((TOP / "docs").rglob("*")):
        place = source.relative_to(TOP / "docs").as_posix()
        (pages / place).parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            (pages / place).write_text(turn_links(source.read_text(), source, place))
        elif source.is_file() and source != CONFIG:
            shutil.copy(source, pages / place)


def write_reference(pages: Path) -> None:
    """A page for each chapter of the reference, every public name whole; and a list of them."""
    listed = ["# Reference\n", "Every public name is importable from `sandyard`.\n"]
    (pages / "reference").mkdir()
    left = sorted(sandyard.__all__)
    for title, modules in CHAPTERS:
        names = [name for name in left if belongs(name, modules)]
        left = [name for name in left if name not in names]
        place = f"reference/{title.lower().replace(' ', '-')}.md"
        body = "\n".join(f"::: sandyard.{name}\n" for name in names)
        (pages / place).write_text(f"# {title}\n\n{body}")
        links = ", ".join(f"[`{name}`]({place}#sandyard.{name})" for name in names)
        listed.append(f"## [{title}]({place})\n\n{links}\n")
    (pages / "reference.md").write_text("\n".join(listed))


def build(site: Path) -> int:
    """The site; 1 where the builder had something to say."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        pages = work / "docs"
        pages.mkdir()
        write_pages(pages)
        write_reference(pages)
        config = CONFIG.read_text().replace("@SOURCES@", str(TOP / "src"))
        (work / "zensical.toml").write_text(config)
        program = Path(sys.executable).with_name("zensical")
        done = subprocess.run(
            [program, "build", "--strict"],
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(done.stdout, end="")
        if done.returncode:
            return 1
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(work / "site", site)
    print(f"{site}: {sum(1 for _ in site.rglob('*.html'))} pages")
    return 0


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1]).resolve() if sys.argv[1:] else TOP / "build" / "site"))
