"""`import sandyard` stays light: few modules, and nothing that only a border needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

IMPORT_LIMIT = 350  # what the import alone may load
CLIENT_LIMIT = 400  # what a program has loaded that can make a session

FOREIGN = frozenset({
    "agents", "anyio", "click", "fastapi", "httpx", "httpx2", "mcp", "openai", "opentelemetry",
    "pytest", "ray", "rich", "starlette", "textual", "typer", "uvicorn", "uvloop", "websockets",
})  # fmt: skip


def list_modules(code: str) -> set[str]:
    """What a fresh interpreter has loaded after this code."""
    shown = f"{code}\nimport sys\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "limit"),
    [
        ("import sandyard", IMPORT_LIMIT),
        ("from sandyard import Manifest, UnixLocalSandboxClient", CLIENT_LIMIT),
    ],
)
def test_import_is_light(code: str, limit: int) -> None:
    modules = list_modules(code)
    packages = {name.partition(".")[0] for name in modules}
    assert not packages & FOREIGN
    assert len(modules) <= limit, sorted(modules)


def test_names_load_late() -> None:
    assert "pydantic" not in list_modules("import sandyard")
    assert "pydantic" in list_modules("from sandyard import Manifest")
