"""The pytest plugin, in runs of pytest of their own: which tests it serves, and what it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.doctor import degrade

ASYNCIO = """
    import asyncio
    import os
    from pathlib import Path

    import pytest
    import pytest_asyncio
    from sandyard import File, Manifest, Policy

    SEEN = Path("seen")

    def note(session):
        with SEEN.open("a") as file:
            file.write(f"{session.state.host_root}\\n")

    @pytest.mark.asyncio
    async def test_runs(sandbox, sandbox_client):
        note(sandbox)
        done = await sandbox.exec("sleep 600 & echo hi; cat /etc/shadow")
        assert (done.stdout, done.exit_code) == (b"hi\\n", 1)
        other = await sandbox_client.create()  # left to the fixture
        await other.start()
        note(other)
        note(await sandbox_client.fork(sandbox))
        gone = await sandbox_client.create()
        await sandbox_client.delete(gone)

    @pytest_asyncio.fixture
    async def project(sandbox):
        note(sandbox)
        await sandbox.write("a", b"made")
        return sandbox

    @pytest.mark.asyncio
    async def test_fixtures_build_on_it(project, sandbox):
        assert project is sandbox
        assert (await sandbox.exec("cat a")).stdout == b"made"
        raise AssertionError("on purpose")

    class TestMarked:
        pytestmark = [
            pytest.mark.asyncio(loop_scope="class"),
            pytest.mark.sandbox(
                policy=Policy(environment=(("A", "1"),)),
                manifest=Manifest(entries={"f": File(content=b"of class")}),
            ),
        ]
        loops = set()

        async def test_class(self, sandbox):
            note(sandbox)
            self.loops.add(asyncio.get_running_loop())
            assert (await sandbox.exec("cat f; printf $A")).stdout == b"of class1"

        @pytest.mark.sandbox(manifest=Manifest(entries={"f": File(content=b"nearer")}))
        async def test_nearer(self, sandbox):
            note(sandbox)
            self.loops.add(asyncio.get_running_loop())
            assert (await sandbox.exec("cat f; printf $A")).stdout == b"nearer1"
            assert len(self.loops) == 1

    class TestOverridden:
        @pytest.fixture
        def sandbox_manifest(self):
            return Manifest(entries={"f": File(content=b"of fixture")})

        @pytest.fixture
        def sandbox_policy(self):
            return Policy(environment=(("A", "2"),))

        @pytest.mark.asyncio
        async def test_overridden(self, sandbox):
            note(sandbox)
            assert (await sandbox.exec("cat f; printf $A")).stdout == b"of fixture2"

    def test_in_own_loop(sandbox_client):
        async def work():
            session = await sandbox_client.create()
            note(session)
            await session.start()
            return await session.exec("echo hi")

        assert asyncio.run(work()).ok()

    def test_plain(sandbox):
        raise AssertionError

    @pytest.mark.asyncio
    @pytest.mark.sandbox(polcy=None)
    async def test_misspelt(sandbox):
        raise AssertionError

    @pytest.mark.asyncio
    @pytest.mark.sandbox(unavailable="never")
    async def test_odd_choice(sandbox):
        raise AssertionError
"""

ANYIO = """
    import sys

    import pytest

    def test_light(request):
        assert request.config.pluginmanager.hasplugin("sandyard")
        heavy = {"pydantic", "sandyard.contract", "sandyard.session", "sandyard.testing.fixtures"}
        assert not heavy & set(sys.modules)

    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_runs(sandbox):
        assert (await sandbox.exec("echo hi")).stdout == b"hi\\n"

    @pytest.fixture
    async def project(sandbox):
        await sandbox.write("a", b"made")
        return sandbox

    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_builds_on_it(project):
        assert (await project.exec("cat a")).stdout == b"made"
"""

UNAVAILABLE = """
    import pytest
    from sandyard import Policy

    pytestmark = [pytest.mark.asyncio, pytest.mark.sandbox(policy=Policy(require=("full",)))]

    async def test_error(sandbox):
        raise AssertionError

    @pytest.mark.sandbox(unavailable="skip")
    async def test_skipped(sandbox):
        raise AssertionError
"""


def run_tests(place: Path, text: str, *options: str, how: str = "") -> str:
    """A run of pytest over one file, in a directory of its own."""
    (place / "test_it.py").write_text(dedent(text))
    asked = "" if "no:asyncio" in options else "asyncio_default_fixture_loop_scope = function\n"
    (place / "pytest.ini").write_text(f"[pytest]\nfilterwarnings = error\n{asked}")
    program = [sys.executable, degrade.__file__, how] if how else []
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", *options]
    root = str(Path(degrade.__file__).parents[2])
    variables = os.environ | {"PYTHONPATH": root, "NO_COLOR": "1", "COLUMNS": "300"}
    done = subprocess.run(
        [*program, *command], cwd=place, env=variables, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_serves_asyncio(tmp_path: Path) -> None:
    said = run_tests(tmp_path, ASYNCIO, "--strict-markers")
    assert "1 failed, 5 passed, 3 errors in" in said, said
    assert "AssertionError: on purpose" in said
    roots = (tmp_path / "seen").read_text().split()
    assert len(roots) == len(set(roots)) == 8
    assert not [root for root in roots if os.path.lexists(root)]
    assert "nothing runs this one on a loop" in said
    assert "takes manifest=, policy=, exposed_ports=, unavailable=, not polcy=" in said
    assert "is error or skip, not 'never'" in said


def test_serves_anyio(tmp_path: Path) -> None:
    """Besides pytest-asyncio in its strict mode; and a test that uses no fixture loads nothing."""
    said = run_tests(tmp_path, ANYIO)
    assert "3 passed" in said, said


@pytest.mark.parametrize(
    ("words", "comes"), [("", "1 skipped, 1 error in"), ("skip", "2 skipped in")]
)
def test_skips_on_request_only(tmp_path: Path, words: str, comes: str) -> None:
    options = ("-o", f"sandbox_unavailable={words}") if words else ()
    said = run_tests(tmp_path, UNAVAILABLE, *options, how="no_user")
    assert comes in said, said
    assert "To fix it:" in next(line for line in said.splitlines() if line.startswith("SKIPPED"))
