"""What commands can reach: tried by commands that try."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

from sandyard.finishing import in_thread
from sandyard.testing.behaviours import Place, Promise, Suite, check, same

__all__ = ["SUITE"]

SUITE = Suite("wall")
says = SUITE.says


async def _fails(place: Place, text: str) -> None:
    result = await place.run(text)
    check(not result.ok(), text, result)


def _make_secret(directory: str | None = None) -> str:
    """A file of the host's that only its user may read."""
    descriptor, path = tempfile.mkstemp(prefix="conformance-", dir=directory)
    os.write(descriptor, b"secret")
    os.close(descriptor)
    return path


@says(Promise.WALL)
async def hides_host_files(place: Place) -> None:
    """A file in the host's directory for temporary files is not read by commands."""
    path = await in_thread(_make_secret)
    try:
        await _fails(place, f"cat {path}")
    finally:
        await in_thread(os.unlink, path)


@says(Promise.WALL)
async def hides_password_hashes(place: Place) -> None:
    """Commands do not read /etc/shadow."""
    await _fails(place, "cat /etc/shadow")


@says(Promise.WALL)
async def writes_nothing_outside(place: Place) -> None:
    """Commands change no directory of the system's."""
    for directory in ("/", "/etc", "/usr", "/usr/bin"):
        await _fails(
            place, f"echo x > {directory}/conformance-test && rm {directory}/conformance-test"
        )


@says(Promise.WALL)
async def shares_no_temporary_files(place: Place) -> None:
    """What commands write to TMPDIR is not in the host's /tmp."""
    await place.said('echo x > "${TMPDIR:-/tmp}/conformance-$$"; echo $$ > pid')
    name = f"conformance-{(await place.content('pid')).decode().strip()}"
    path = Path("/tmp") / name  # noqa: S108  # where it must not be
    found = await in_thread(path.exists)
    if found:
        await in_thread(path.unlink)
    check(not found, path)


@says(Promise.WALL)
async def hides_host_processes(place: Place) -> None:
    """The process of the caller does not show to commands, nor what it was started with."""
    await _fails(
        place, f"grep -q . /proc/{os.getpid()}/cmdline && readlink /proc/{os.getpid()}/exe"
    )


@says(Promise.WALL)
async def signals_no_host_process(place: Place) -> None:
    """Commands can't send a signal to the caller."""
    await _fails(place, f"kill -0 {os.getpid()}")


@says(Promise.WALL)
async def reads_no_host_memory(place: Place) -> None:
    """Commands can't open the caller's environment and memory."""
    await _fails(place, f"cat /proc/{os.getpid()}/environ || head -c1 /proc/{os.getpid()}/mem")


@says(Promise.WALL)
async def reaches_no_host_port(place: Place) -> None:
    """A port that listens on the host's loopback is not reached by commands."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        await _fails(place, f'bash -c "exec 3<>/dev/tcp/127.0.0.1/{port}"')


@says(Promise.WALL)
async def reaches_no_abstract_socket(place: Place) -> None:
    """An abstract Unix socket of the host's is not reached by commands."""
    code = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect('\\0'+sys.argv[1])"
    name = f"conformance-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + name)
        server.listen()
        result = await place.session.exec("python3", "-c", code, name, shell=False)
    check(not result.ok(), result)


@says(Promise.WALL)
async def gains_no_rights(place: Place) -> None:
    """Commands have no capability, and can gain none."""
    # By calls: where there is no /proc, its files say nothing.
    code = (
        "import ctypes; c=ctypes.CDLL(None); d=(ctypes.c_uint32*6)(); "
        "assert c.capget((ctypes.c_uint32*2)(0x20080522,0), d) == 0; "
        "e,p,_,f,q,_=d; print(c.prctl(39,0,0,0,0), e|f, p|q)"
    )
    result = await place.session.exec("python3", "-c", code, shell=False)
    same(result.stdout.split(), [b"1", b"0", b"0"])  # no_new_privs, effective, permitted


@says(Promise.WALL)
async def is_not_root(place: Place) -> None:
    """Commands do not run as user 0."""
    check(await place.said("id -u") != "0\n", "they do")


@says(Promise.WALL)
async def traces_nothing_outside(place: Place) -> None:
    """The workspace of a session is not seen by the commands of another."""
    path = await place.session.normalize_path(await place.put("it"))
    async with place.make() as other, other:
        check(not (await other.exec("cat", str(path), shell=False)).ok(), "it is")


@says(Promise.ENVIRONMENT)
async def hides_variables(place: Place) -> None:
    """A variable of the host's that nobody allowed is not in the environment of commands."""
    name = "CONFORMANCE_TEST_KEY"
    os.environ[name] = "secret"
    try:
        async with place.make() as other, other:
            same((await other.exec(f"echo ${{{name}-none}}")).stdout, b"none\n")
    finally:
        del os.environ[name]


@says(Promise.ENVIRONMENT)
async def has_what_programs_need(place: Place) -> None:
    """PATH, HOME and TMPDIR are there, and HOME and TMPDIR can be written to."""
    await place.said('echo x > "$HOME/x" && echo x > "$TMPDIR/x" && rm "$HOME/x" "$TMPDIR/x"')
    await place.said("command -v sh && command -v cat")


@says(Promise.ENVIRONMENT)
async def has_own_home(place: Place) -> None:
    """HOME is neither the host user's nor in the workspace."""
    home = (await place.said("echo $HOME")).strip()
    root = str(await place.session.normalize_path("."))
    check(home != str(await in_thread(Path.home)) and not f"{home}/".startswith(f"{root}/"), home)


@says(Promise.ENVIRONMENT)
async def inherits_no_descriptors(place: Place) -> None:
    """A command has its three descriptors, and no other of the caller's."""
    reading, writing = os.pipe()
    try:
        os.set_inheritable(reading, True)
        code = (
            "import os\n"
            f"for n in range({reading + 64}):\n"
            "  try: os.fstat(n)\n"
            "  except OSError: pass\n"
            "  else: print(n)"
        )
        result = await place.session.exec("python3", "-c", code, shell=False)
        same(result.stdout.split(), [b"0", b"1", b"2"])
    finally:
        os.close(reading)
        os.close(writing)


@says(Promise.WALL)
async def loopback_works(place: Place) -> None:
    """Commands can talk to each other over the loopback."""
    code = (
        "import socket; s=socket.create_server(('127.0.0.1',0)); "
        "c=socket.create_connection(s.getsockname()); a,_=s.accept(); c.send(b'x'); print(a.recv(1))"
    )
    result = await place.session.exec("python3", "-c", code, shell=False)
    same(result.stdout, b"b'x'\n")


@says(Promise.WALL)
async def devices_work(place: Place) -> None:
    """The devices that programs expect are there, and no disk."""
    await place.said("head -c 8 /dev/urandom >/dev/null && [ -c /dev/null ] && [ -c /dev/zero ]")
    same(await place.said("find /dev -type b 2>/dev/null | head -1"), "")


@says(Promise.WALL)
async def git_works(place: Place) -> None:
    """``git`` makes a repository, commits and switches branches."""
    await place.said(
        "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b; "
        "git init -q r && cd r && echo x > x && git add x && git commit -qm one && "
        "git checkout -qb other && git log --oneline | grep -q one"
    )
