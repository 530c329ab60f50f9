"""The tree that describes a manifest to a model."""

from __future__ import annotations

import logging

import pytest

from sandyard.errors import ManifestError
from sandyard.limits import DESCRIPTION_CHARS
from sandyard.manifest import Dir, File, LocalDir, Manifest


def _manifest() -> Manifest:
    return Manifest(
        root="/srv/w/",
        entries={
            "repo": Dir(
                description="the code",
                children={"README.md": File(content=""), "lib": Dir(children={"x": Dir()})},
            ),
            "data/in.csv": File(content="", description="input"),
            "copy": LocalDir(src="."),
            "a.txt": File(content=""),
        },
    )


def test_one_level() -> None:
    assert _manifest().describe() == (
        "/srv/w\n"
        "├── a.txt  # /srv/w/a.txt\n"
        "├── copy/  # /srv/w/copy\n"
        "├── data/  # /srv/w/data\n"
        "└── repo/  # /srv/w/repo — the code\n"
    )


def test_all_levels() -> None:
    assert _manifest().describe(None) == (
        "/srv/w\n"
        "├── a.txt          # /srv/w/a.txt\n"
        "├── copy/          # /srv/w/copy\n"
        "├── data/          # /srv/w/data\n"
        "│   └── in.csv     # /srv/w/data/in.csv — input\n"
        "└── repo/          # /srv/w/repo — the code\n"
        "    ├── README.md  # /srv/w/repo/README.md\n"
        "    └── lib/       # /srv/w/repo/lib\n"
        "        └── x/     # /srv/w/repo/lib/x\n"
    )
    assert _manifest().describe(2).count("\n") == 8


def test_nothing_to_describe() -> None:
    assert Manifest().describe() == "/workspace\n"
    assert Manifest(entries={".": Dir(description="x")}).describe() == "/workspace\n"


def test_names_stay_on_their_line() -> None:
    text = Manifest(entries={"a\nb": File(content="", description="x\ny")}).describe()
    assert text == "/workspace\n└── a\\nb  # /workspace/a\\nb — x\\ny\n"


@pytest.mark.parametrize("depth", [0, -1, True])
def test_bad_depth(depth: int) -> None:
    with pytest.raises(ManifestError, match="depth"):
        Manifest().describe(depth)


def test_a_long_tree_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    manifest = Manifest(entries={f"file-{n:04}.txt": File(content="") for n in range(1000)})
    with caplog.at_level(logging.WARNING, "sandyard.manifest"):
        text = manifest.describe()
    assert len(text) <= DESCRIPTION_CHARS
    assert "truncated" in text
    assert "`ls`" in text
    assert "cut to" in caplog.text
