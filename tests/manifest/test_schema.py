"""The JSON schema of manifests: current in docs/, and true of what manifests accept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar, Literal

from sandyard import (
    Archive,
    BaseEntry,
    BindMount,
    Dir,
    File,
    GitRepo,
    LocalDir,
    LocalFile,
    Manifest,
    OverlayMount,
    RemoteMount,
    TmpfsMount,
)

ROOT = Path(__file__).parents[2]


def _definitions() -> dict[str, dict[str, object]]:
    found = Manifest.json_schema()["$defs"]
    assert isinstance(found, dict)
    return found


def test_the_page_is_current() -> None:
    script = ROOT / "scripts" / "schema.py"
    done = subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_entry_fits() -> None:
    entries = (
        Archive(src="x"), Dir(), File(content=b"\xff"), GitRepo(repo="a/b"), LocalDir(), LocalFile(src="x"),
        BindMount(source="/x"), OverlayMount(source="/x"), TmpfsMount(),
        RemoteMount(provider="p", source="x"),
    )  # fmt: skip
    definitions = _definitions()
    for entry in entries:
        definition = definitions[type(entry).__name__]
        properties = definition["properties"]
        assert isinstance(properties, dict)
        assert properties["type"] == {"const": entry.type, "type": "string"}
        assert definition["additionalProperties"] is False
        assert json.loads(entry.model_dump_json()).keys() <= properties.keys()
    family = definitions["BaseEntry"]["discriminator"]
    assert family == {
        "propertyName": "type",
        "mapping": {entry.type: f"#/$defs/{type(entry).__name__}" for entry in entries},
    }


def test_own_entries_are_in_it() -> None:
    class Own(BaseEntry):
        type: Literal["own_entry"] = "own_entry"
        level: int = 3
        only_base: ClassVar[bool] = False

    try:
        assert "Own" in _definitions()
    finally:
        BaseEntry._known.pop("own_entry")  # noqa: SLF001 - nothing else takes a type out again
