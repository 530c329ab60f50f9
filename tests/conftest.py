"""What every test lives under: no leaks, no blocking calls, directories of its own run."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.house.blocking import never_blocks
from tests.house.leaks import leaves_nothing

__all__ = ["leaves_nothing", "never_blocks"]

# How long examples take, and their making, measures what else the machine does.
settings.register_profile(
    "sandyard", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("sandyard")

RUN_DIRECTORY = pytest.StashKey[Path]()

ONCE = (
    "background/test_ends.py",
    "background/test_layout.py",
    "background/test_logs.py",
    "background/test_slow_disk.py",
    "confinement",
    "contract",
    "docs/test_site.py",
    "doctor/test_shortage.py",
    "escape/test_counting.py",
    "exhaustion/test_channel.py",
    "exhaustion/test_descriptors.py",
    "fuzz",
    "house",
    "integrations/test_sessions.py",
    "ladder/test_explaining.py",
    "layered/test_crashes.py",
    "layered/test_killed.py",
    "manifest",
    "overlays/test_crashes.py",
    "overlays/test_try.py",
    "platform",
    "process/test_direct.py",
    "process/test_native_builds.py",
    "process/test_wire.py",
    "process/test_wire_header.py",
    "session/test_any_values.py",
    "session/test_claims.py",
    "session/test_interrupted.py",
    "session/test_making.py",
    "session/test_odd_values.py",
    "snapshot",
    "terminal/test_load.py",
    "terminal/test_programs.py",
    "terminal/test_truncation.py",
    "testing/test_scripted.py",
    "test_accounts.py",
    "test_errors.py",
    "test_lifecycle.py",
    "test_loading.py",
    "test_policy.py",
    "test_state.py",
    "test_types.py",
    "util",
    "workspace/race",
)
"""What shows the same for every user, or nearly so and takes long; beneath this directory: marked
``once``."""

PLAIN = (
    "archive",
    "background/test_processes.py",
    "cli/test_cp.py",
    "cli/test_pumping.py",
    "cli/test_run.py",
    "cli/test_sessions.py",
    "cli/test_snapshots.py",
    "cli/test_tmux.py",
    "cli/test_trying.py",
    "docs/test_examples.py",
    "elsewhere",
    "events",
    "explain",
    "faults/test_awaits.py",
    "faults/test_calls.py",
    "faults/test_kills.py",
    "integrations/test_runs.py",
    "session/test_sweep.py",
    "supervisor/test_life.py",
    "supervisor/test_terminal.py",
    "terminal/test_old_verbs.py",
    "terminal/test_readers.py",
    "terminal/test_terminal.py",
    "testing/test_plugin.py",
    "test_dependencies.py",
    "test_finishing.py",
    "workspace/test_patches.py",
    "workspace/test_properties.py",
)
"""The same, and an ordinary user's half shows it better: marked ``plain``, unless it needs root."""


def pytest_configure(config: pytest.Config) -> None:
    """Give this run its own temporary, runtime and state directories.

    Then what appears in them is ours, however many runs share the machine, and nobody's real
    sessions are swept by a test. They have the modes of what they stand in for. The path is
    short, because a socket's path has at most 107 bytes.
    """
    shared = tempfile.gettempdir()
    # tmp_path stays where pytest puts it, to be looked at after a failure.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", shared)
    base = Path(tempfile.mkdtemp(prefix="sy-", dir=shared))
    config.stash[RUN_DIRECTORY] = base
    base.chmod(0o755)
    for variable, name, mode in (
        ("TMPDIR", "tmp", 0o1777),
        ("XDG_RUNTIME_DIR", "run", 0o700),
        ("XDG_STATE_HOME", "state", 0o700),
    ):
        (base / name).mkdir()
        (base / name).chmod(mode)
        os.environ[variable] = str(base / name)
    tempfile.tempdir = None  # it is asked for again, and finds TMPDIR
    hear_signals()
    gc.disable()  # collecting thousands of tests leaves next to no garbage


def hear_signals() -> None:
    """Undo what a shell or nohup does to a run in the background, and to all that it starts.

    A shell without job control ignores SIGINT and SIGQUIT for it (POSIX, Shell Command Language,
    2.11), nohup SIGHUP; and what is ignored stays so in every program that is executed.
    """
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the run's directories."""
    if base := config.stash.get(RUN_DIRECTORY, None):
        shutil.rmtree(base, ignore_errors=True)


@cache
def is_listed(path: Path, names: tuple[str, ...]) -> bool:
    """Whether a file of tests is named, or a directory above it; asked for each of its tests."""
    return any(path.is_relative_to(Path(__file__).parent / name) for name in names)


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Skip what the present user cannot show."""
    is_root = os.geteuid() == 0
    unwanted, reason = ("user", "needs an ordinary user") if is_root else ("root", "needs root")
    for item in items:
        if item.get_closest_marker(unwanted):
            item.add_marker(pytest.mark.skip(reason=reason))
        if not item.get_closest_marker("user") and is_listed(item.path, ONCE):
            item.add_marker(pytest.mark.once)
        if not item.get_closest_marker("root") and is_listed(item.path, PLAIN):
            item.add_marker(pytest.mark.plain)
        if item.get_closest_marker("once") and item.get_closest_marker("plain"):
            raise pytest.UsageError(f"{item.nodeid} would be in neither half of `make test`")


def pytest_collection_finish() -> None:
    """Take thousands of collected tests out of the collector's sight: some tests call it."""
    gc.collect()
    gc.freeze()
    gc.enable()
