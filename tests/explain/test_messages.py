"""What programs say: samples of real ones, hostile ones, and the programs themselves where they are."""

from __future__ import annotations

import random
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard import Policy
from sandyard.explaining.complaints import PHRASES, TAIL_BYTES
from sandyard.explaining.parsing import find_complaints
from tests.explain.probing import opened

SAMPLES: tuple[tuple[str, str, str, str | None], ...] = (
    # (what a program wrote, errno, the likeliest subject, operation); <> are curly quotes
    ("cat: /etc/shadow: No such file or directory", "ENOENT", "/etc/shadow", None),
    ("cat: /x/denied: Permission denied", "EACCES", "/x/denied", None),
    ("touch: cannot touch '/usr/x': Read-only file system", "EROFS", "/usr/x", "write"),
    ("mkdir: cannot create directory </usr/d>: Read-only file system", "EROFS", "/usr/d", "create"),
    ("rm: cannot remove '/usr/bin/ls': Read-only file system", "EROFS", "/usr/bin/ls", "remove"),
    ("mv: cannot move 'a b' to '/usr/l 2': Read-only file system", "EROFS", "/usr/l 2", "move"),
    ("mv: cannot move '.git' to 'x': Device or resource busy", "EBUSY", "x", "move"),
    ("ln: failed to create hard link 'x' to '/y': Invalid cross-device link", "EXDEV", "/y", "create"),
    ("find: </srv/zzz>: No such file or directory", "ENOENT", "/srv/zzz", None),
    ("tee: /usr/x y: Read-only file system", "EROFS", "/usr/x y", None),
    ("tar: /srv/x.tar: Cannot open: No such file or directory", "ENOENT", "/srv/x.tar", None),
    ("bash: line 1: /usr/x: Read-only file system", "EROFS", "/usr/x", None),
    ("bash: line 1: .git/config: Read-only file system", "EROFS", ".git/config", None),
    ("sh: 1: cannot create /usr/x: Read-only file system", "EROFS", "/usr/x", "create"),
    ("sh: 1: cannot create /srv/zz/y: Directory nonexistent", "ENOENT", "/srv/zz/y", "create"),
    ("sh: 1: cannot open /etc/shadow: No such file", "ENOENT", "/etc/shadow", None),
    ("sh: 1: /opt/nope/tool: not found", "ENOENT", "/opt/nope/tool", None),
    ("OSError: [Errno 30] Read-only file system: '/usr/x'", "EROFS", "/usr/x", None),
    ("OSError: [Errno 30] Read-only file system: '/a' -> '/b'", "EROFS", "/a", None),
    (
        "python3: can't open file '/srv/x.py': [Errno 2] No such file or directory",
        "ENOENT", "/srv/x.py", None,
    ),
    ("Error: EROFS: read-only file system, mkdir '/usr/x'", "EROFS", "/usr/x", "create"),
    ("Error: EACCES: permission denied, open '/x'", "EACCES", "/x", None),
    ("Error: EBUSY: resource busy or locked, rename '/a' -> '/b'", "EBUSY", "/a", "move"),
    ("Error: EXDEV: cross-device link not permitted, link '/a' -> '/b'", "EXDEV", "/a", "create"),
    ("Error: Cannot find module '/srv/x.js'", "ENOENT", "/srv/x.js", None),
    ("fatal: cannot mkdir /usr/x: Read-only file system", "EROFS", "/usr/x", "create"),
    ("fatal: cannot change to '/srv/x': No such file or directory", "ENOENT", "/srv/x", None),
    (
        "error: could not lock config file .git/config: Read-only file system",
        "EROFS", ".git/config", "write",
    ),
    ("open /etc/shadow: permission denied", "EACCES", "/etc/shadow", None),
    ("error: couldn't read `/srv/x.rs`: No such file or directory (os error 2)", "ENOENT", "/srv/x.rs", "read"),
    (
        "  failed to create directory `/usr/proj`\n\nCaused by:\n  Read-only file system (os error 30)",
        "EROFS", "/usr/proj", None,
    ),
    ("cc1: fatal error: /srv/x.c: No such file or directory", "ENOENT", "/srv/x.c", None),
    ("/usr/bin/ld: cannot open output file /usr/x: Read-only file system", "EROFS", "/usr/x", None),
    ("Fatal error: can't create /usr/aa.o: Read-only file system", "EROFS", "/usr/aa.o", "create"),
    ("make: /srv/Makefile: No such file or directory", "ENOENT", "/srv/Makefile", None),
    ("make: *** /srv/x: No such file or directory.  Stop.", "ENOENT", "/srv/x", None),
    ("java.nio.file.FileSystemException: /usr/x: Read-only file system", "EROFS", "/usr/x", None),
    ("java.nio.file.NoSuchFileException: /etc/shadow", "ENOENT", "/etc/shadow", None),
    ("java.nio.file.AccessDeniedException: /x", "EACCES", "/x", None),
    ("java.io.FileNotFoundException: /usr/x (Read-only file system)", "EROFS", "/usr/x", None),
    ("cannot write /usr/x: Read-only file system at -e line 1.", "EROFS", "/usr/x", "write"),
    ("dd: error writing '/tmp/x': No space left on device", "ENOSPC", "/tmp/x", "write"),
    ("curl: (6) Could not resolve host: example.org", "EAI_AGAIN", "example.org", None),
    ("curl: (6) Couldn't resolve host 'example.org'", "EAI_AGAIN", "example.org", None),
    ("ssh: Could not resolve hostname github.com: Temporary failure", "EAI_AGAIN", "github.com", None),
    ("wget: unable to resolve host address <example.org>", "EAI_AGAIN", "example.org", None),
    ("Error: getaddrinfo ENOTFOUND example.org", "EAI_NONAME", "example.org", None),
    ("npm error reason: getaddrinfo EAI_AGAIN registry.npmjs.org", "EAI_AGAIN", "registry.npmjs.org", None),
    ("java.net.UnknownHostException: example.org", "EAI_NONAME", "example.org", None),
    ("dial tcp: lookup example.org: Temporary failure", "EAI_AGAIN", "example.org", None),
    ("curl: (7) Failed to connect to 1.1.1.1 port 80 after 0 ms", "ECONNREFUSED", "1.1.1.1:80", None),
    ("ssh: connect to host 1.1.1.1 port 22: Network", "ENETUNREACH", "1.1.1.1:22", None),
    ("Error: connect ENETUNREACH 1.1.1.1:80 - Local (0.0.0.0:0)", "ENETUNREACH", "1.1.1.1:80", None),
    ("Error: connect ECONNREFUSED ::1:5432", "ECONNREFUSED", "[::1]:5432", None),
    ("Error: connect ECONNREFUSED 127.0.0.1:5432", "ECONNREFUSED", "127.0.0.1:5432", None),
    ("dial tcp 1.1.1.1:443: connect: connection refused", "ECONNREFUSED", "1.1.1.1:443", None),
    ("dial tcp [::1]:443: connect: connection refused", "ECONNREFUSED", "[::1]:443", None),
    ("Connecting to 1.1.1.1:80... failed: Connection refused.", "ECONNREFUSED", "1.1.1.1:80", None),
    (
        'connection to server at "db" (10.0.0.1), port 5432 failed: Connection refused',
        "ECONNREFUSED", "db:5432", None,
    ),
    ("HTTPSConnectionPool(host='pypi.org', port=443): Max", "EAI_AGAIN", "pypi.org:443", None),
    ("socket.gaierror: [Errno -3] Temporary failure in name resolution", "EAI_AGAIN", "", None),
    ("socket.gaierror: [Errno -2] Name or service not known", "EAI_NONAME", "", None),
    ("OSError: [Errno 101] Network is unreachable", "ENETUNREACH", "", None),
    ("unshare: unshare failed: Operation not permitted", "EPERM", "unshare", None),
    ("strace: ptrace(PTRACE_SEIZE, 7): Operation not permitted", "EPERM", "ptrace", None),
    ("x: io_uring_setup: Function not implemented", "ENOSYS", "io_uring_setup", None),
    ("mount: /tmp: must be superuser to use mount.", "EPERM", "mount", None),
    ("chroot: cannot change root directory to '/': Operation not", "EPERM", "chroot", None),
    ("bwrap: Creating new namespace failed: Operation not", "EPERM", "unshare", None),
    ("nsenter: reassociate to namespace 'ns/mnt' failed:", "EPERM", "setns", None),
    ("dmesg: read kernel buffer failed: Operation not", "EPERM", "syslog", None),
    ("date: cannot set date: Operation not", "EPERM", "clock_settime", None),
    ("Could not trace the inferior process.", "EPERM", "ptrace", None),
    ("strace: test_ptrace: PTRACE_TRACEME: Operation not", "EPERM", "ptrace", None),
    ("OSError: [Errno 24] Too many open files: '/dev/null'", "EMFILE", "", None),
    ("cat: write error: File too large", "EFBIG", "", None),
    ("sh: 1: Cannot fork", "EAGAIN", "", None),
    ("bash: fork: retry: Resource temporarily unavailable", "EAGAIN", "", None),
    ("make: fork: Resource temporarily unavailable", "EAGAIN", "", None),
    ("BlockingIOError: [Errno 11] Resource temporarily unavailable", "EAGAIN", "", None),
    ("RuntimeError: can't start new thread", "EAGAIN", "", None),
    ("java.lang.OutOfMemoryError: unable to create native thread", "EAGAIN", "", None),
    ("runtime/cgo: pthread_create failed: Resource temp", "EAGAIN", "", None),
    ("thread 'main' panicked: failed to spawn thread: Os", "EAGAIN", "", None),
)  # fmt: skip


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample[0][:40])
@pytest.mark.parametrize("stream", ["stderr", "stdout"])
def test_sample_is_understood(sample: tuple[str, str, str, str | None], stream: str) -> None:
    text, error, subject, operation = sample
    text = (
        text.replace("<", "\u2018").replace("->", "-\0").replace(">", "\u2019").replace("\0", ">")
    )
    output = f"some noise\n{text}\nmore noise\n".encode()
    found = find_complaints(*((output, b"") if stream == "stderr" else (b"", output)))
    told = [
        (each.phrase.error, *each.subjects[:1], each.operation)
        for each in found
        if not subject or each.subjects
    ]
    wanted = (error, subject, operation) if subject else (error, operation)
    assert wanted in told or (not subject and not told)


def test_each_phrase_has_sample() -> None:
    whole = "\n".join(text for text, *_ in SAMPLES).lower().encode()
    assert [phrase.text for phrase in PHRASES if phrase.text not in whole] == []
    assert all(phrase.source for phrase in PHRASES)


@pytest.mark.parametrize(
    "text",
    [
        "ls: nothing",
        "Too many open files in system",
        "GET /foo/bar 404 Not Found",
        "failed to connect to database",
        "Operation not permitted",
        "Permission denied (publickey).",
        "Permission denied",
        "x" * 9000 + ": Permission denied",
        "bash: foo: command not found",
    ],
)
def test_no_complaint_without_subject(text: str) -> None:
    found = find_complaints(text.encode(), b"")
    assert not any(path.startswith("/") for each in found for path in each.subjects)
    assert all(each.subjects for each in found)


# --- hostile output ---------------------------------------------------------------------------

MEGABYTE = 1 << 20
HOSTILE = {
    "quotes": b"'" * MEGABYTE,
    "openings": b" '/a" * (MEGABYTE // 4),
    "phrases": b"permission denied" * (MEGABYTE // 17),
    "phrases in quotes": b"'/x': permission denied " * (MEGABYTE // 24),
    "slashes": b"/" * MEGABYTE + b": Permission denied",
    "colons": b": " * (MEGABYTE // 2) + b": Permission denied",
    "numbers": b"[Errno " * (MEGABYTE // 7) + b"Permission denied",
    "hosts": b"could not resolve host: " + b"a." * (MEGABYTE // 2),
    "ports": b"failed to connect to a port " + b"port " * (MEGABYTE // 5),
    "calls": b"a(" * (MEGABYTE // 2) + b"): Operation not permitted",
    "backquotes": b"`a " * (MEGABYTE // 3) + b" Read-only file system",
    "double quotes": b' "a' * (MEGABYTE // 3) + b"Read-only file system",
    "empty lines": b"\n" * MEGABYTE + b"Read-only file system",
    "nothing": b"\0" * MEGABYTE,
    "curly": b"\xe2\x80\x98" * (MEGABYTE // 3) + b"Permission denied",
    "each phrase": b"\n".join(phrase.text for phrase in PHRASES) * 900,
    "letters": b"create" * (MEGABYTE // 6) + b" /x: Permission denied",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.timeout(10)  # a pattern that goes back takes hours here
def test_hostile_output_is_bounded(name: str) -> None:
    for text in (HOSTILE[name], HOSTILE[name][: TAIL_BYTES - 64] + b"\n/x: Permission denied"):
        for found in (find_complaints(text, b""), find_complaints(b"", text)):
            assert len(found) <= 256
            assert all(len(path) < 4096 for each in found for path in each.subjects)


def test_only_last_bytes_count() -> None:
    said = b"cat: /first: Permission denied\n"
    noise = b"x" * 79 + b"\n"
    assert find_complaints(said + noise * (TAIL_BYTES // 80 + 1), b"") == ()
    assert find_complaints(noise * 9999 + said, b"")
    assert find_complaints(noise * 9999, said) == ()  # the errors fill all that is looked at
    assert find_complaints(noise, said)


@given(st.binary(max_size=300), st.sampled_from(PHRASES), st.binary(max_size=300))
def test_any_bytes_are_taken(before: bytes, phrase: object, after: bytes) -> None:
    text = getattr(phrase, "text", b"")
    for each in find_complaints(before + text + after, after + text + before):
        assert all("\0" not in subject for subject in each.subjects)


def test_length_costs_no_more_than_length() -> None:
    dice = random.Random(7)  # noqa: S311  # to vary a test
    words = [phrase.text for phrase in PHRASES] + [b"'/a/b'", b"/c", b": ", b"\n", b"`", b'"', b"["]
    for _ in range(20):
        text = b"".join(dice.choice(words) for _ in range(9000))
        assert len(find_complaints(text, b"")) <= 128


# --- the programs themselves ------------------------------------------------------------------

PROGRAMS: tuple[tuple[str, str, str, str], ...] = (
    # (program, shell text, kind, subject)
    ("cat", "cat {out}/file", "path", "{out}/file"),
    ("touch", "touch /usr/x", "path", "/usr/x"),
    ("mkdir", "mkdir /usr/d", "path", "/usr/d"),
    ("rm", "rm /usr/bin/env", "path", "/usr/bin/env"),
    ("mv", "mv /usr/bin/env moved", "path", "/usr/bin/env"),
    ("cp", "cp /usr/bin/env /usr/bin/e2", "path", "/usr/bin/e2"),
    ("ls", "ls {out}", "path", "{out}"),
    ("find", "find {out}", "path", "{out}"),
    ("tee", "tee /usr/x", "path", "/usr/x"),
    ("sh", "echo x > /usr/x", "path", "/usr/x"),
    ("sh", "cat < {out}/file", "path", "{out}/file"),
    ("sh", "echo x > {out}/new", "path", "{out}/new"),
    ("sh", "{out}/tool", "path", "{out}/tool"),
    ("bash", "bash -c 'echo x > /usr/x'", "path", "/usr/x"),
    ("python3", "python3 -c 'open(\"/usr/x\", \"w\")'", "path", "/usr/x"),
    ("python3", "python3 {out}/x.py", "path", "{out}/x.py"),
    ("python3", "python3 -c 'import urllib.request as u; u.urlopen(\"http://a.b\")'", "address", "network"),
    ("node", "node -e 'fs.writeFileSync(\"/usr/x\", \"\")'", "path", "/usr/x"),
    ("node", "node {out}/x.js", "path", "{out}/x.js"),
    ("node", "node -e 'net.connect(80, \"1.1.1.1\")'", "address", "1.1.1.1:80"),
    ("node", "node -e 'net.connect(81, \"127.0.0.1\")'", "address", "127.0.0.1:81"),
    ("git", "git init -q /usr/x", "path", "/usr/x"),
    ("git", "git clone -q https://example.org/a", "address", "example.org"),
    ("git", "git -C {out} status", "path", "{out}"),
    ("curl", "curl -sS http://example.org", "address", "example.org"),
    ("curl", "curl -sS http://1.1.1.1:81", "address", "1.1.1.1:81"),
    ("curl", "curl -sS http://localhost:81", "address", "localhost:81"),
    ("wget", "wget -q http://example.org || wget http://1.1.1.1:81", "address", "1.1.1.1:81"),
    ("ssh", "ssh -n example.org", "address", "example.org"),
    ("gcc", "gcc -o /usr/x -x c /dev/null -shared", "path", "/usr/x"),
    ("gcc", "gcc {out}/x.c", "path", "{out}/x.c"),
    ("make", "make -C {out}", "path", "{out}"),
    ("tar", "tar -xf {out}/x.tar", "path", "{out}/x.tar"),
    ("sed", "sed -n p {out}/x", "path", "{out}/x"),
    ("perl", "perl -e 'open(F, \">\", \"/usr/x\") or die \"can not write /usr/x: $!\"'", "path", "/usr/x"),
    ("cargo", "cargo new -q /usr/x", "path", "/usr/x"),
    ("rustc", "rustc {out}/x.rs", "path", "{out}/x.rs"),
    ("unshare", "unshare -r true", "syscall", "unshare"),
    ("chroot", "chroot / true", "syscall", "chroot"),
    ("date", "date -s 2001-01-01", "syscall", "clock_settime"),
    ("cat", "cat /proc/1/environ", "path", "/proc/1/environ"),
)  # fmt: skip

OUT = "/srv/out"
"""A path that is not shown; whether it exists is not looked up, so it need not."""


@pytest.mark.parametrize("case", PROGRAMS, ids=lambda case: case[1][:30])
async def test_program_is_understood(case: tuple[str, str, str, str]) -> None:
    program, text, kind, subject = case
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    async with opened(None, Policy()) as session:
        if (await session.exec(f"command -v {program}")).exit_code:
            pytest.skip(f"{program} can't be seen inside")
        result = await session.exec(text.format(out=OUT), env={"LC_ALL": "C.UTF-8"}, timeout=60)
    assert result.exit_code != 0
    told = [(denial.kind, denial.subject) for denial in result.denials]
    assert (kind, subject.format(out=OUT)) in told, (told, result.stderr)
