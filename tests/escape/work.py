"""Honest work that no wall may get in the way of."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from typing import Final, Literal

from sandyard import UnixLocalSandboxSession

__all__ = ["WORK", "Work", "is_possible", "python", "run_work", "shell"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One thing that works.

    Attributes:
        name: what it is.
        language: as of an attack.
        code: prints WORKS at its end.
        program: what it needs on the host, or nothing.
        slow: whether it takes more than a few milliseconds.
    """

    name: str
    language: Literal["sh", "py"]
    code: str
    program: str = ""
    slow: bool = False


def shell(name: str, code: str, *, program: str = "", slow: bool = False) -> Work:
    return Work(name=name, language="sh", code=code, program=program, slow=slow)


def python(name: str, code: str, *, slow: bool = False) -> Work:
    return Work(name=name, language="py", code=code, slow=slow)


COMMIT: Final = (
    "rm -rf repo && git init -q repo && cd repo && git config user.email a@example.com && "
    "git config user.name a && echo x > f && git add f && git commit -qm one && "
    "git checkout -qb branch && git mv f g && git commit -qam two && git stash list && "
    'test "$(git log --oneline | wc -l)" = 2 && git fsck --strict && echo WORKS'
)
COMPILE: Final = (
    "printf '#include <stdio.h>\\nint main(void){puts(\"WORKS\");return 0;}' > p.c && "
    "cc p.c -o p && ./p"
)
SORT: Final = (
    "seq 60000 | sort -R > /tmp/s && sort -n -S 1M /tmp/s | tail -1 | grep -qx 60000 && "
    "rm /tmp/s && echo WORKS"
)
PROCESSES: Final = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
with multiprocessing.Lock(), ProcessPoolExecutor(2) as pool:
    print("WORKS" if list(pool.map(abs, (-1, -2))) == [1, 2] else "")
"""
DATABASE: Final = """
import os, sqlite3
for place in ("/tmp/base", "base"):
    with sqlite3.connect(place) as base:
        base.execute("pragma journal_mode=wal")
        base.execute("create table t (x)")
        base.executemany("insert into t values (?)", [(n,) for n in range(100)])
        assert base.execute("select sum(x) from t").fetchone() == (4950,)
    base.close()
    os.remove(place)
print("WORKS")
"""
SUBPROCESS: Final = """
import asyncio
async def main():
    process = await asyncio.create_subprocess_exec("echo", "WORKS", stdout=-1)
    print((await process.communicate())[0].decode())
asyncio.run(main())
"""
SERVER: Final = """
import socket, threading
family, address = {}
server = socket.create_server(address, family=family)
threading.Thread(target=lambda: server.accept()[0].sendall(b"WORKS"), daemon=True).start()
print(socket.create_connection(server.getsockname()[:2], 5).recv(9).decode())
"""
UNIX: Final = """
import os, socket
for address in ("work.s", "/tmp/work.s", chr(0) + "work.s"):
    server, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()
    client.connect(address)
    server.accept()[0].send(b"x")
    assert client.recv(1) == b"x"
    if address[0] != chr(0):
        os.remove(address)
print("WORKS")
"""
SHARED: Final = """
from multiprocessing import shared_memory
made = shared_memory.SharedMemory(create=True, size=4096)
made.buf[0] = 7
again = shared_memory.SharedMemory(made.name)
print("WORKS" if again.buf[0] == 7 else "")
again.close(); made.close(); made.unlink()
"""
THREADS: Final = """
import subprocess, threading
said = []
def run(): said.append(subprocess.check_output(["echo", "WORKS"]))
threads = [threading.Thread(target=run) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(said[0].decode() if len(said) == 8 else "")
"""
TERMINAL: Final = """
import os, pty
said = bytearray()
def read(fd):
    data = os.read(fd, 100)
    said.extend(data)
    return data
pty.spawn(["sh", "-c", "test -t 0 && tty"], read)
print("WORKS" if b"/dev/pts/" in said else said)
"""

WORK: Final = (
    shell("write_and_read", "echo WORKS > w && cat w && rm w"),
    shell("temporary_file", 'f=$(mktemp) && cat > "$f" <<E && cat "$f" && rm "$f"\nWORKS\nE'),
    shell("temporary_directory", 'd=$(mktemp -d) && mkdir "$d/x" && rm -r "$d" && echo WORKS'),
    shell("fifo", "rm -f ff && mkfifo ff && (echo WORKS > ff &) && cat ff && rm ff"),
    shell("links", "echo x > a && ln -s a b && ln a c && cat b c >/dev/null && rm a b c"
          " && echo WORKS"),
    shell("modes", "echo x > a && chmod 640 a && chmod +x a && test -x a && rm a && echo WORKS"),
    shell("sticky_directory", "mkdir a && chmod 1777 a && rmdir a && echo WORKS"),
    shell("owner", 'test -O . && test "$(id -un)" = "$(stat -c %U .)" && echo WORKS'),
    shell("processes", "ps -o pid= -p $$ | grep -q . && echo WORKS", program="ps"),
    shell("standard_streams", "echo x > /dev/stderr; echo WORKS > /dev/stdout"),
    shell("devices", "head -c 9 /dev/urandom > /dev/null && head -c 9 /dev/zero | wc -c"
          " | grep -q 9 && echo WORKS"),
    shell("pipes", "yes | head -c 200000 | wc -c | grep -q 200000 && echo WORKS"),
    shell("archive", "mkdir -p a/b && echo x > a/b/c && tar -czf t.tgz a && rm -r a &&"
          " tar -xzf t.tgz && cat a/b/c && rm -r a t.tgz && echo WORKS"),
    shell("find_and_xargs", "mkdir a && touch a/1 a/2 && find a -type f -print0 | xargs -0 rm &&"
          " rmdir a && echo WORKS"),
    shell("own_memory_score", "echo 500 > /proc/self/oom_score_adj && echo WORKS"),
    shell("home", 'echo x > "$HOME/.probe" && rm "$HOME/.probe" && echo WORKS'),
    shell("signals", "sleep 100 & kill $! && ! wait $! && echo WORKS"),
    shell("nice", "nice -n 5 true && echo WORKS"),
    shell("sort", SORT, slow=True),
    shell("git", COMMIT, program="git", slow=True),
    shell("compiler", COMPILE, program="cc", slow=True),
    shell("key", "rm -f k k.pub && ssh-keygen -q -t ed25519 -N '' -f k && rm k k.pub &&"
          " echo WORKS", program="ssh-keygen", slow=True),
    shell("pip", "pip --version && echo WORKS", program="pip", slow=True),
    python("database", DATABASE),
    python("loopback", SERVER.format("socket.AF_INET, ('127.0.0.1', 0)")),
    python("loopback6", SERVER.format("socket.AF_INET6, ('::1', 0)")),
    python("unix_sockets", UNIX),
    python("threads", THREADS),
    python("terminal", TERMINAL),
    python("shared_memory", SHARED, slow=True),
    python("subprocess", SUBPROCESS, slow=True),
    python("pool", PROCESSES, slow=True),
)  # fmt: skip


def is_possible(work: Work) -> bool:
    """Whether this host has what it needs."""
    return not work.program or shutil.which(work.program) is not None


async def run_work(session: UnixLocalSandboxSession, work: Work) -> None:
    """Do it, and check that it worked."""
    start = ("sh", "-c") if work.language == "sh" else (sys.executable, "-c")
    timeout = 120 if work.slow else 20
    result = await session.exec(*start, work.code, shell=False, timeout=timeout)
    assert b"WORKS" in result.stdout.split(), (work.name, result.stdout, result.stderr)
    assert result.exit_code == 0, (work.name, result)
