"""The documentation's pages and the blocks of code in them."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        name: page and line, for messages.
        code: what is in it.
    """

    name: str
    code: str


def list_blocks(language: str) -> list[Block]:
    """The blocks in a language, of all pages."""
    blocks = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in BLOCK.finditer(text):
            if found[1] == language:
                line = text.count("\n", 0, found.start()) + 1
                blocks.append(Block(f"{page.relative_to(ROOT)}:{line}", found[2]))
    return blocks


def make_surroundings(top: Path) -> None:
    """Make the directories that the pages speak of, as the first of them says."""
    (lines,) = [each for each in list_blocks("sh") if each.code.startswith("mkdir project")]
    subprocess.run(["sh", "-euc", lines.code], cwd=top, check=True)
