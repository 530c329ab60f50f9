"""The larger tools that people work with: package managers, debuggers, servers, runtimes."""

from __future__ import annotations

import sys
from typing import Final

from tests.escape.work import Work, python, shell

__all__ = ["TOOLS"]

REPOSITORIES: Final = (
    "rm -rf r tree clone again && git init -q r && cd r && git config user.email a@example.com && "
    "git config user.name a && echo x > f && git add f && git commit -qm one && "
    "git worktree add -q ../tree -b side && (cd ../tree && echo y > g && git add g && "
    "git commit -qm two) && git merge -q side && test -e g && "
    'echo z >> f && git stash -q && test "$(cat f)" = x && git stash pop -q && '
    'git clone -q . ../clone && git clone -q "file://$PWD" ../again && cd ../clone && '
    "git fetch -q ../r side && git log -1 --format=%s FETCH_HEAD | grep -qx two && echo WORKS"
)
PACKAGE: Final = (
    "mkdir pack user && cd pack && printf "
    '\'{"name":"probe","version":"1.0.0","main":"i.js"}\' > package.json && '
    "echo 'module.exports=\"WORKS\"' > i.js && npm pack --silent >/dev/null && cd ../user && "
    "echo '{}' > package.json && "
    "npm install --silent --no-audit --no-fund --offline ../pack/probe-1.0.0.tgz && "
    "node -e 'console.log(require(\"probe\"))'"
)
SCREEN: Final = (
    "tmux -L probe new-session -d 'echo WORKS > said; sleep 100' && "
    "until test -s said; do sleep 0.02; done && tmux -L probe ls >/dev/null && cat said && "
    "tmux -L probe kill-server"
)
DEBUGGER: Final = (
    "printf 'int f(int x){return x*2;}\\nint main(void){return f(21)-42;}' > p.c && "
    "cc -g p.c -o p && gdb -q -nx -batch -ex 'break f' -ex run -ex finish ./p 2>&1 | "
    "grep -q '= 42' && echo WORKS"
)
CLASS: Final = (
    "printf 'class P { public static void main(String[] a) { System.out.println(\"WORKS\"); } }'"
    " > P.java && java P.java"
)
# Our own plugin is installed where these tests run, from a checkout that commands can't read.
TESTS: Final = (
    "mkdir t && for i in 1 2 3; do echo \"def test_$i(tmp_path): (tmp_path / 'f').touch()\""
    f" > t/test_$i.py; done && {sys.executable} -m pytest -q -n 2 -p no:cacheprovider -p no:sandyard t"
    " && echo WORKS"
)
INDEX: Final = """
import http.server, os, subprocess, sys, threading, zipfile
os.makedirs("index/probe")
wheel, facts = "probe-1.0-py3-none-any.whl", "probe-1.0.dist-info"
files = {
    "probe.py": "print('WORKS')",
    f"{facts}/METADATA": "Metadata-Version: 2.1\\nName: probe\\nVersion: 1.0\\n",
    f"{facts}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
}
files[f"{facts}/RECORD"] = "".join(f"{name},,\\n" for name in (*files, f"{facts}/RECORD"))
with zipfile.ZipFile("index/probe/" + wheel, "w") as made:
    for name, content in files.items(): made.writestr(name, content)
with open("index/probe/index.html", "w") as page: page.write(f'<a href="{wheel}">{wheel}</a>')
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words): pass
    def __init__(self, *words): super().__init__(*words, directory="index")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}"
def run(*words): subprocess.run(words, check=True)
run(sys.executable, "-m", "venv", "env")
run("env/bin/pip", "install", "-q", "--disable-pip-version-check", "-i", address, "probe")
run("env/bin/python", "-m", "probe")
"""

TOOLS: Final[tuple[Work, ...]] = (
    shell("repositories", REPOSITORIES, program="git", slow=True),
    shell("make", "printf 'out: in\\n\\tcp in out\\n' > Makefile && echo WORKS > in && make -s -j2 &&"
          " cat out", program="make", slow=True),
    shell("sqlite", "sqlite3 base.db \"create table t(x); insert into t values('WORKS'); "
          'select x from t"', program="sqlite3", slow=True),
    shell("npm", PACKAGE, program="npm", slow=True),
    shell("tmux", SCREEN, program="tmux", slow=True),
    shell("gdb", DEBUGGER, program="gdb", slow=True),
    shell("java", CLASS, program="java", slow=True),
    shell("parallel_tests", TESTS, slow=True),
    python("pip_from_index", INDEX, slow=True),
)  # fmt: skip
"""gdb needs a policy that allows tracing. The machine that checks changes (Debian 12) has git, make
and a compiler; npm, tmux, gdb, java and sqlite3 are tried where they are."""
