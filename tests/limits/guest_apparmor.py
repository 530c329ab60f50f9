#!/usr/bin/python3.11
"""The first process of an emulated machine whose AppArmor keeps user namespaces from ordinary users.

It runs in the guest (see emulator.py), prints one line of JSON and powers the machine off.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from guest import (  # type: ignore[import-not-found]  # beside it there
    GROUPS,
    USER,
    Answers,
    build_root,
    in_group,
    mount,
    power_off,
)

KERNEL = Path("/sys/kernel/security/apparmor/features/namespaces/mask")
PARSER = "/usr/share/apparmor-root"
ATTEMPT = "import ctypes; raise SystemExit(ctypes.CDLL(None).unshare(0x10000000) != 0)"
RESTRICTION = "kernel/apparmor_restrict_unprivileged_userns"

PEOPLE = """
abi <abi/4.0>,
include <tunables/global>
profile people {
  capability,
  network,
  mount,
  remount,
  umount,
  pivot_root,
  ptrace,
  signal,
  unix,
  mqueue,
  io_uring,
  /{,**} rwlkm,
  /** pix,
}
"""
"""What everybody's programs may: all but user namespaces, unless a profile is a program's own. In stock
kernels that takes the place of Ubuntu's setting."""


async def use_session() -> Answers:
    """What an ordinary user gets, and what the doctor tells him."""
    Path("/proc/self/attr/apparmor/current").write_text("changeprofile people")  # noqa: ASYNC240  # without a thread
    from sandyard import Policy, UnixLocalSandboxClient, errors  # noqa: PLC0415
    from sandyard.checkup import doctor  # noqa: PLC0415
    from sandyard.policy import DIMENSIONS  # noqa: PLC0415

    answers: Answers = {}
    report = await doctor()
    answers["holds"], answers["doctor"] = report.holds, report.rung
    answers["lacks"] = f"{report.cause} {report.lacks}"
    for name, policy in (("default", Policy()), ("lower", Policy(accept=DIMENSIONS))):
        client = UnixLocalSandboxClient(policy=policy)
        session = await client.create()
        try:
            async with session:
                held = session.confinement
                answers[name] = "" if held is None else held.rung
                result = await session.exec("id -u; cat /proc/self/attr/current")
                answers[f"{name} says"] = result.stdout.decode()
        except errors.ConfinementUnavailableError as error:
            answers[name] = str(error)
        await client.delete(session)
    words = ["/usr/bin/python3", "-c", ATTEMPT]
    answers["other"] = subprocess.run(words, check=False).returncode  # noqa: ASYNC221
    return answers


async def ask_doctor() -> Answers:
    """What the doctor would print if this kernel had Ubuntu's setting; all else is as it is found here."""
    from sandyard.platform.host import host_facts  # noqa: PLC0415
    from sandyard.platform.probes import machine_facts  # noqa: PLC0415
    from sandyard.platform.probes_facts import Tried  # noqa: PLC0415
    from sandyard.platform.probes_fixes import namespace_fix  # noqa: PLC0415
    from sandyard.process.launching import program_path  # noqa: PLC0415

    facts = machine_facts(
        os.environ, host_facts(os.environ), program_path(), threads=True, protocol="1"
    )
    facts = replace(facts, settings={**facts.settings, RESTRICTION: 1})
    fix = namespace_fix(facts, Tried("refused", errno=errno.EACCES), "max_user_namespaces")
    return {"text": fix.text, "lines": fix.commands}


def parse(*words: str) -> tuple[str, int]:
    """Run the parser with the libraries that it was built for."""
    loader = [
        f"{PARSER}/ld-linux-x86-64.so.2",
        "--library-path",
        PARSER,
        f"{PARSER}/apparmor_parser",
    ]
    done = subprocess.run([*loader, *words], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr, done.returncode


def load(lines: list[str]) -> tuple[str, int]:
    """Do what the doctor says, as root: its profile, and its last command."""
    start = next(at for at, line in enumerate(lines) if line.endswith("<<'END'"))
    words = shlex.split(lines[start])
    target = Path(words[words.index("tee") + 1])
    target.write_text("\n".join(lines[start + 1 : lines.index("END")]) + "\n")
    sudo, parser, *rest = shlex.split(lines[-1])
    assert (sudo, parser) == ("sudo", "apparmor_parser")
    return parse(*rest)


def main() -> None:
    answers: Answers = {}
    with power_off(answers):
        build_root()
        os.environ.update(HOME="/root", PATH="/usr/bin", TMPDIR="/tmp")
        mount("securityfs", "/sys/kernel/security", "securityfs")
        shutil.copytree(f"{PARSER}/apparmor.d", "/etc/apparmor.d")
        os.makedirs("/home/user")
        os.chown("/home/user", USER, USER)
        group = GROUPS / "people"
        answers["kernel"] = KERNEL.read_text()
        Path("/etc/apparmor.d/people").write_text(PEOPLE)
        answers["people"] = parse("-r", "/etc/apparmor.d/people")
        answers["restricted"] = in_group(group, use_session)
        answers["told"] = in_group(group, ask_doctor)
        answers["loaded"] = load(answers["told"]["lines"])
        answers["profiled"] = in_group(group, use_session)


if __name__ == "__main__":
    main()
