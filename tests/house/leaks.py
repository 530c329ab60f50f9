"""What a test must not leave behind: processes, descriptors, threads, mounts, cgroups, files.

Every kind is a function that returns what exists now, by an identity of its own. The fixture
looks before and after, and what is new afterwards is a leak. A listening socket needs no kind of
its own: ours is a descriptor, one of a child comes with the child.

Some things end shortly after `close()` has returned, and no owner could know better: a process
group that was just killed is still being torn down, a reaped init's namespaces let go of their
mounts later, a thread that has been joined leaves /proc a moment after. So a difference gets
`GRACE` to disappear before it is reported. Nothing is excused for good.

Other test runs on the same machine must not disturb: temporary files are watched in directories
that belong to this run (`tests/conftest.py` makes them), processes by descent, and mounts in the
directory of another run's tests are that run's.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import suppress
from functools import cache

import pytest

from sandyard.limits import IDENTITIES_FIRST

# Seconds. What is torn down asynchronously takes milliseconds, on a loaded machine more. The
# variable is for the tests of this file, which wait for leaks that never go.
GRACE = float(os.environ.get("SANDYARD_LEAK_GRACE", "1.0"))
OUR_NAMES = ("sandyard", "sandbox-local-")
INIT_NAME = "sandyard-init"
SELFTEST = "leaks-selftest-"
"""What a test of this file calls its cgroup, followed by its process; no sweep knows the name."""

Found = Mapping[Hashable, str]


def read_proc(path: str) -> str:
    """The text of a file in /proc, or nothing when its process has gone meanwhile."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def list_names(path: str) -> list[str]:
    """The names in a directory, or none when it is not there."""
    try:
        return os.listdir(path)
    except OSError:
        return []


def describe_process(pid: int) -> str:
    """A process in words: its number, state, name and command."""
    name, (state, _) = read_proc(f"/proc/{pid}/comm").strip(), read_state(pid)
    command = read_proc(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
    ended = " (ended, never waited for)" if state == "Z" else ""
    return f"process {pid} {name!r} state {state}{ended} {command[:120]}"


def read_state(pid: int) -> tuple[str, int]:
    """A process's state letter and its parent's number; "?" and 0 when it has gone."""
    fields = read_proc(f"/proc/{pid}/stat").rpartition(") ")[2].split()
    return (fields[0], int(fields[1])) if fields else ("?", 0)


@cache
def list_ancestors() -> frozenset[int]:
    """The processes above this one: whoever adopts our orphans is among them.

    It is the last of them where `scripts/adopting.py` runs us: what is above adopts those of others.
    """
    adopter = int(os.environ.get("SANDYARD_ADOPTER", "1"))
    above, pid = set[int](), os.getppid()
    while pid and pid not in above:
        above.add(pid)
        if pid == adopter:
            return frozenset(above)
        _, pid = read_state(pid)
    return frozenset(above | {1})


def list_children(pid: int) -> Iterator[int]:
    """The direct children of all threads of a process."""
    for thread in list_names(f"/proc/{pid}/task"):
        for child in read_proc(f"/proc/{pid}/task/{thread}/children").split():
            yield int(child)


def find_descendants() -> set[int]:
    """Every process below this one, zombies included."""
    found, todo = set[int](), [os.getpid()]
    while todo:
        new = [child for child in list_children(todo.pop()) if child not in found]
        found.update(new)
        todo.extend(new)
    return found


def find_processes() -> Found:
    """Our descendants by number; a description would cost too much here."""
    return {pid: f"process {pid}" for pid in find_descendants()}


def find_numbers() -> Found:
    """All process numbers of the machine: the baseline for finding orphans."""
    return {name: "" for name in list_names("/proc") if name.isdigit()}


def is_of_this_user(pid: int) -> bool:
    """Whether a run of this user's can have started a process: root's sandboxes have leased ids."""
    uids = re.search(r"^Uid:\s+(\d+)", read_proc(f"/proc/{pid}/status"), re.MULTILINE)
    uid = int(uids[1]) if uids else -1
    return uid == os.getuid() or (os.getuid() == 0 and uid >= IDENTITIES_FIRST)


def find_orphans(before: Found) -> Found:
    """Inits that appeared since and whose parent is gone: a host process of ours that died.

    They belong to whoever stands above us, who also waits for them when they have ended. Inits of
    another run have its Python for a parent, or are another user's.
    """
    orphans: dict[Hashable, str] = {}
    for name in find_numbers().keys() - before.keys():
        pid = int(str(name))
        if read_proc(f"/proc/{pid}/comm").strip() != INIT_NAME:
            continue
        state, parent = read_state(pid)
        if state != "Z" and parent in list_ancestors() and is_of_this_user(pid):
            orphans[pid] = f"orphaned {describe_process(pid)}"
    return orphans


def find_descriptors() -> Found:
    """Open descriptors with what they lead to."""
    found: dict[Hashable, str] = {}
    for name in list_names("/proc/self/fd"):
        # The descriptor that lists the directory has gone by now.
        with suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            found[name, target] = f"descriptor {name} -> {target}"
    return found


def find_threads() -> Found:
    """Threads of the kernel's list, so those that Python did not start count too."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    return {
        tid: f"thread {tid} {names.get(int(tid), 'not started by Python')!r}"
        for tid in list_names("/proc/self/task")
    }


def find_mounts() -> Found:
    """Mounts of our own mount namespace; a changed one counts as new.

    The tree of trace events appears when somebody on the machine looks at it.
    """
    lines = read_proc("/proc/self/mountinfo").splitlines()
    return {line: f"mount {line}" for line in lines if " - tracefs " not in line}


@cache
def list_controllers() -> tuple[str, ...]:
    """The directories of our own cgroup, one for each hierarchy that is mounted."""
    own = {}
    for line in read_proc("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path
    found = []
    for line in read_proc("/proc/self/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = [*rest.split(), "", "", ""][:3]
        where = fields.split()[4]
        if kind == "cgroup2" and "" in own:
            found.append(where + own[""].rstrip("/"))
        elif kind == "cgroup":
            wanted = set(options.split(","))
            paths = [p for c, p in own.items() if c and set(c.split(",")) <= wanted]
            found.extend(where + path.rstrip("/") for path in paths)
    return tuple(dict.fromkeys(found))


def find_cgroups() -> Found:
    """Cgroups below our own, two deep where the name is ours; those of others have processes."""
    found: dict[Hashable, str] = {}
    todo = list(list_controllers())
    while todo:
        with suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found[entry.path] = f"cgroup {entry.path}"
                    if entry.name.startswith(OUR_NAMES):
                        todo.append(entry.path)
    return found


def find_files() -> Found:
    """Entries of this run's temporary, runtime and state directories, and our names in /dev/shm.

    pytest's own directories (tmp_path) are the test's to fill.
    """
    runtime, state = os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("XDG_STATE_HOME")
    found: dict[Hashable, str] = {}
    for place in filter(None, (tempfile.gettempdir(), runtime)):
        for name in list_names(place):
            if not name.startswith("pytest-of-"):
                found[f"{place}/{name}"] = f"file or directory {place}/{name}"
    for name in list_names("/dev/shm"):
        if name.startswith(OUR_NAMES):
            found[f"/dev/shm/{name}"] = f"shared memory /dev/shm/{name}"
    if state:
        sessions = f"{state}/sandyard/sessions"
        found.update({f"{sessions}/{n}": f"session {sessions}/{n}" for n in list_names(sessions)})
    return found


KINDS: tuple[Callable[[], Found], ...] = (
    find_processes,
    find_descriptors,
    find_threads,
    find_mounts,
    find_cgroups,
    find_files,
)


class Traces:
    """What existed at one moment, to be compared with what exists later.

    Attributes:
        own: the directory of this run's tests, where mounts of other runs are not.
    """

    def __init__(self, own: str = "") -> None:
        self.own = own
        # Looking creates nothing that the next kind would see.
        self.seen = [kind() for kind in KINDS]
        self.numbers = find_numbers()

    def find_new(self) -> dict[Hashable, str]:
        """What has appeared since and is still there."""
        new: dict[Hashable, str] = {}
        for kind, before in zip(KINDS, self.seen, strict=True):
            now = kind()
            new.update({kind_key(kind, key): now[key] for key in now.keys() - before.keys()})
        new.update({("orphan", key): text for key, text in find_orphans(self.numbers).items()})
        return {key: text for key, text in new.items() if not belongs_elsewhere(text, self.own)}

    def wait_for_none(self, grace: float = GRACE) -> dict[Hashable, str]:
        """What is still there when the grace is over; returns at once when nothing is new."""
        deadline, pause = time.monotonic() + grace, 0.001
        while (new := self.find_new()) and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        return new


def kind_key(kind: Callable[[], Found], key: Hashable) -> Hashable:
    """An identity across kinds: a process and a thread may have the same number."""
    return (kind.__name__, key)


def belongs_elsewhere(text: str, own: str) -> bool:
    """Whether another program made it: a cgroup with processes none of which is ours, or a mount."""
    if text.startswith("mount "):
        return bool(own) and f"{own}/" not in text and "/pytest-of-" in text
    if not text.startswith("cgroup "):
        return False
    if made := re.search(rf"/{SELFTEST}(\d+)$", text):
        return int(made[1]) not in find_forebears()
    members = {int(pid) for pid in read_proc(f"{text[7:]}/cgroup.procs").split()}
    return bool(members) and not members & (find_descendants() | {os.getpid()})


def find_forebears() -> set[int]:
    """This process, its parent, and so on."""
    found, pid = set[int](), os.getpid()
    while pid and pid not in found:
        found.add(pid)
        fields = read_proc(f"/proc/{pid}/stat").rpartition(")")[2].split()
        pid = int(fields[1]) if fields else 0
    return found


def end_processes(leaked: Mapping[Hashable, str]) -> None:
    """Kill leaked descendants, so that a failing run does not fill the machine."""
    for key in leaked:
        match key:
            case ("find_processes", int(pid)):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)


def describe_all(leaked: Mapping[Hashable, str]) -> str:
    """One leak a line, processes with their commands."""
    lines = []
    for key, text in leaked.items():
        match key:
            case ("find_processes", int(pid)):
                lines.append(describe_process(pid))
            case _:
                lines.append(text)
    return "\n".join(f"  left behind: {line}" for line in sorted(lines))


@pytest.fixture(autouse=True)
def leaves_nothing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail a test that leaves anything behind; it is set up first and so torn down last."""
    before = Traces(str(tmp_path_factory.getbasetemp()))
    yield
    if leaked := before.wait_for_none():
        report = describe_all(leaked)
        end_processes(leaked)
        gc.collect()  # what only a cycle kept must not be counted against the next test
        pytest.fail(f"the test leaves something behind, {GRACE} s after its end:\n{report}", False)
