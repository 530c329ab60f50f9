"""The one look at what this machine allows: it reads what can be read, and tries the rest.

What is tried is tried in a throw-away program (``probes_child``), never in the calling one, which
may have threads and must not lose a right. Nothing here raises for an odd machine.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from importlib import metadata
from typing import Final, Literal

from sandyard.platform import probes_child, probes_host
from sandyard.platform.auditing import AuditStanding, audit_standing
from sandyard.platform.facts import HostFacts
from sandyard.platform.host import AUDITED_ABI
from sandyard.platform.interpreter import own_interpreter
from sandyard.platform.probes_facts import CgroupFacts, MachineFacts, Tried

__all__ = ["check_spare", "machine_facts", "threads_work", "try_machine"]

_PATIENCE_S: Final = 12.0
"""Seconds for the whole program: more than it gives itself."""

_TOOLS: Final = (
    "python3", "git", "bash", "make", "cc", "gcc", "clang", "cmake", "node", "npm", "uv", "cargo",
    "rustc", "go", "java", "ruby", "perl",
)  # fmt: skip
"""Programs that people ask for first."""


def threads_work() -> bool:
    """Whether a thread can be started."""
    try:
        thread = threading.Thread(target=int, name="sandyard-doctor")
        thread.start()
    except RuntimeError:
        return False
    thread.join()
    return True


def machine_facts(
    environ: Mapping[str, str], host: HostFacts, program: str, *, threads: bool, protocol: str
) -> MachineFacts:
    """Look at the machine; blocks for a tenth of a second and never raises.

    Args:
        environ: the caller's environment.
        host: what is known of it already.
        program: path of the native program.
        threads: what ``threads_work`` said.
        protocol: the version of the protocol that the library speaks.
    """
    places = probes_host.find_places(environ)
    places["temporary"] = _temporary(places["temporary"])
    cgroups = probes_host.own_cgroups()
    tried = try_machine(program, places, [path for _, path, _ in cgroups])
    tried["clock"] = _clock()
    missing = Tried("unknown", text="it was not tried")
    names, pretty = probes_host.read_distribution()
    return MachineFacts(
        system=host.system,
        kernel=os.uname().release,
        machine=host.machine,
        distribution=names,
        distribution_name=pretty,
        python=".".join(str(part) for part in sys.version_info[:3]),
        version=_version(),
        euid=host.euid,
        container=probes_host.find_container(environ),
        chrooted=probes_host.is_chrooted(),
        threads=threads,
        privileged=probes_host.has_privilege(),
        filtered=probes_host.is_filtered(),
        selinux=probes_host.read_text("/sys/fs/selinux/enforce").strip() == "1",
        settings=probes_host.read_settings(),
        limits=probes_host.read_limits(),
        procfs=os.path.exists("/proc/self/status"),
        hidepid=probes_host.proc_option(),
        covered=probes_host.find_covered(),
        program=probes_host.program_facts(program),
        tried=tried,
        cgroups=tuple(
            CgroupFacts(version, path, controllers, tried.get(f"writable:cgroup{number}", missing))
            for number, (version, path, controllers) in enumerate(cgroups)
        ),
        places=places,
        shell=host.shell if os.path.exists(host.shell) else "",
        tools=tuple(name for name in _TOOLS if shutil.which(name, path=":".join(host.search_path))),
        landlock=host.landlock_abi,
        audit=_audit(host),
        protocol=protocol,
    )


def _audit(host: HostFacts) -> AuditStanding | Literal[""]:
    if host.landlock_abi < AUDITED_ABI:
        return ""
    try:
        return audit_standing() if host.euid == 0 else "closed"
    except OSError:  # no descriptor is left to ask with
        return ""


def _clock() -> Tried:
    """Whether the clock that timeouts are measured by never goes back."""
    first, second = time.monotonic(), time.monotonic()
    if time.get_clock_info("monotonic").monotonic and first <= second:
        return Tried("ok")
    return Tried("refused", step="clock_gettime", text="it goes back")


def _temporary(named: str) -> str:
    try:
        return tempfile.gettempdir()
    except OSError:  # there is none that can be written
        return named


_SPARE_PIPES: Final = 4
"""As many descriptors as starting a program takes: its three streams, and how it went."""


def check_spare() -> None:
    """Refuse to start a program with too few descriptors: ``subprocess`` would lose some of them.

    Raises:
        OSError: there are too few.
    """
    with ExitStack() as spare:
        for _ in range(_SPARE_PIPES):
            for descriptor in os.pipe():
                spare.callback(os.close, descriptor)


def _version() -> str:
    try:
        return metadata.version("sandyard")
    except metadata.PackageNotFoundError:
        return "(not installed)"
    except OSError:  # no descriptor to look with
        return "(not known)"


def _nearest(path: str) -> str:
    """What there is of a path; it need not be a directory, and then nothing can be made in it."""
    while path not in ("", "/") and not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def try_machine(program: str, places: Mapping[str, str], cgroups: list[str]) -> dict[str, Tried]:
    """Try everything in a throw-away program; what it could not say is unknown, and why."""
    mark = f"sandyard-doctor-{secrets.token_hex(8)}"
    order = {"init": program, "runnable:temporary": os.path.join(places["temporary"], mark)}
    for name in ("state", "runtime"):
        if places[name]:
            order[f"writable:{name}"] = os.path.join(_nearest(places[name]), mark)
    for number, path in enumerate(cgroups):
        order[f"writable:cgroup{number}"] = os.path.join(path, mark)
    try:
        said = _run(json.dumps(order))
        answers = json.loads(said)
        return {name: _tried(answer) for name, answer in answers.items()}
    except OSError as error:
        failure = Tried("unknown", step="spawn", errno=error.errno, text=_words(error))
    except (subprocess.SubprocessError, ValueError, AttributeError, TypeError) as error:
        failure = Tried("unknown", step="spawn", text=f"the probing program failed: {error}")
    return {"all": failure}


def _words(error: OSError) -> str:
    return f"the probing program could not be started: {error.strerror}"


def _run(order: str) -> str:
    python = own_interpreter()
    if not python:
        raise OSError(errno.ENOENT, "this program does not know its interpreter")
    check_spare()
    # Isolated and without site: nothing of the caller's is imported, and it starts in a few ms.
    done = subprocess.run(
        [python, "-I", "-S", probes_child.__file__, order],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_PATIENCE_S,
        check=False,
    )
    if done.returncode != 0:
        last = [*done.stderr.strip().splitlines(), f"exit code {done.returncode}"]
        raise ValueError(last[0] if len(last) == 1 else last[-2])
    return done.stdout


def _tried(answer: Mapping[str, object]) -> Tried:
    outcome: Literal["ok", "refused", "unknown"] = "unknown"
    if answer.get("outcome") == "ok":
        outcome = "ok"
    elif answer.get("outcome") == "refused":
        outcome = "refused"
    number, killer = answer.get("errno"), answer.get("signal")
    text, name = str(answer.get("text", "")), str(answer.get("step", ""))
    if isinstance(killer, int):
        text, name = f"ended by signal {killer} ({_signal_name(killer)})", ""
    return Tried(
        outcome,
        value=str(answer.get("value", "")),
        step=name,
        errno=number if isinstance(number, int) else None,
        text=text,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "of real time"
