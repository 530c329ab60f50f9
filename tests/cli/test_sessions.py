"""`sandyard create`, `exec`, `ls`, `ps`, `logs`, `kill`, `rm`: sessions that outlive a command."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.calling import PATIENCE_S, SANDYARD, call
from tests.network.host import ECHO, converse, free_port
from tests.supervisor.conftest import home

__all__ = ["home"]

# Each test starts several programs, one after the other.
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def web(home: Path) -> str:
    """A session called "web"."""
    done = call("create", "--name", "web")
    assert (done.returncode, done.stdout) == (0, b"web\n"), done.stderr
    return "web"


def objects(*words: str) -> list[dict[str, object]]:
    """What a verb prints as JSON."""
    done = call(*words, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_exit_code_passes_through(web: str) -> None:
    for command, code in (
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -9 $$"], 137),
        (["/etc/passwd"], 126),
        (["no-such-program"], 127),
    ):
        assert call("exec", web, "--", *command).returncode == code


def test_work_stays(web: str) -> None:
    assert call("exec", web, "sh", "-c", "echo kept > file").returncode == 0
    assert call("exec", web, "cat", "file").stdout == b"kept\n"
    assert [Path(str(one["path"])).name for one in objects("ls", web)] == ["file"]


def test_ports_are_exposed(home: Path) -> None:
    port = free_port()
    assert call("create", "--name", "server", "--port", str(port)).returncode == 0
    taken = call("create", "--name", "second", "--port", str(port))
    assert taken.returncode == 125
    assert b"taken by" in taken.stderr
    serve = f"python3 -c {shlex.quote(ECHO)} {port} >/dev/null 2>&1 & echo on"
    assert call("exec", "server", "sh", "-c", serve).stdout == b"on\n"
    listens = f"until grep -q ':{port:04X} .* 0A ' /proc/net/tcp; do :; done"
    assert call("exec", "server", "sh", "-c", listens).returncode == 0
    assert asyncio.run(converse(port, b"hello")) == b"hello"
    assert call("rm", "server").returncode == 0
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(converse(port, b""))


def test_streams_pass_whole(web: str) -> None:
    data = os.urandom(3_000_000)
    done = call("exec", web, "sh", "-c", "cat; echo err >&2", stdin=data)
    assert done.stdout == data
    assert done.stderr == b"err\n"


def test_words_and_variables(web: str) -> None:
    done = call("exec", web, "printf", "%s|", "a b", "--", "$HOME", "")
    assert done.stdout == b"a b|--|$HOME||"
    done = call(
        "exec", "--env", "A=1", "--env", "GIVEN", "--cwd", "/tmp", web, "sh", "-c",
        "echo $A $GIVEN; pwd", env={"GIVEN": "mine"},
    )  # fmt: skip
    assert done.stdout == b"1 mine\n/tmp\n"


def test_callers_environment_counts(home: Path) -> None:
    # The supervisor was started with another one.
    assert call("create", "--name", "one").returncode == 0
    words = ("create", "--name", "two", "--env", "GIVEN")
    assert call(*words, env={"GIVEN": "mine"}).returncode == 0
    assert call("exec", "two", "sh", "-c", "echo $GIVEN").stdout == b"mine\n"


def test_relative_directories(home: Path) -> None:
    project = home / "project"
    project.mkdir()
    (project / "file").write_text("given")
    assert call("create", "--name", "copy", "--copy", "project", cwd=home).returncode == 0
    assert call("create", "--name", "own", "--workspace", "project", cwd=home).returncode == 0
    assert call("exec", "copy", "sh", "-c", "cat file; echo x > file").stdout == b"given"
    assert call("exec", "own", "sh", "-c", "cat file; echo y > made").stdout == b"given"
    assert call("rm", "copy", "own").returncode == 0
    assert sorted(os.listdir(project)) == ["file", "made"]
    assert (project / "file").read_text() == "given"


def test_policy_holds(home: Path) -> None:
    assert call("create", "--name", "one", "--read", str(home)).returncode == 0
    assert call("exec", "one", "ls", str(home / "state")).returncode == 0
    # The supervisor's own socket is closed, whatever is granted.
    done = call("exec", "one", "ls", str(home / "run" / "sandyard"))
    assert done.returncode != 0
    assert b"Permission denied" in done.stderr
    # Nor is it mounted.
    entry = {"type": "bind_mount", "source": str(home / "run")}
    (home / "shown.json").write_text(json.dumps({"entries": {"data": entry}}))
    done = call("create", "--name", "two", "--manifest", str(home / "shown.json"))
    assert done.returncode != 0
    assert b"Policy(deny" in done.stderr


def test_background_work(web: str) -> None:
    done = call("exec", "-d", "--name", "srv", web, "sh", "-c", "echo up; echo bad >&2; sleep 600")
    assert done.stdout == b"srv\n"
    (listed,) = objects("ps", web)
    assert (listed["name"], listed["state"], listed["kind"]) == ("srv", "running", "process")
    with subprocess.Popen(
        [*SANDYARD, "logs", "-f", web, "srv"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == b"up\n"
        assert call("kill", web, "srv").returncode == 0
        out, err = following.communicate(timeout=PATIENCE_S)
        assert (following.returncode, out, err) == (0, b"", b"bad\n")
    assert objects("ps", web) == []
    (listed,) = objects("ps", web, "--all")
    assert listed["exit_code"] == -signal.SIGTERM
    assert call("logs", "-n", "1", web, "srv").returncode == 0


def test_interrupt_goes_to_command(web: str) -> None:
    text = "trap 'echo bye; exit 5' INT; echo up; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [*SANDYARD, "exec", web, "sh", "-c", text], stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"bye\n"
        assert process.wait(PATIENCE_S) == 5


def test_timeout_is_told(web: str) -> None:
    done = call("exec", "--timeout", "0.3", web, "sleep", "600")
    assert done.returncode == 124
    assert b"exec_timeout" in done.stderr


def test_json_of_command(web: str) -> None:
    done = call("exec", "--json", web, "sh", "-c", "echo out; exit 3")
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit_code"], told["stdout"]) == (3, 3, "out\n")
    (listed,) = objects("ls")
    assert told["confinement"] == listed["confinement"]
    assert told["confinement"]["syscalls"] == "enforced"


def test_denials_are_told(web: str) -> None:
    done = call("exec", web, "cat", "/etc/shadow")
    assert b"--read /etc/shadow" in done.stderr


def test_prefix_finds_session(home: Path) -> None:
    assert call("create").returncode == 0
    (listed,) = objects("ls")
    assert call("exec", str(listed["id"])[:8], "true").returncode == 0
    completing = {"_SANDYARD_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
    words = f"sandyard exec {listed['name']}"[:-3]
    assert call(env={**completing, "COMP_WORDS": words}).stdout.decode() == f"{listed['name']}\n"
    assert call("rm", str(listed["name"])).returncode == 0
    assert objects("ls") == []
    (gone,) = objects("ls", "--all")
    assert (gone["id"], gone["state"]) == (listed["id"], "removed")
    done = call("exec", str(listed["name"]), "true")
    assert done.returncode == 125
    assert b"is gone: it was removed at" in done.stderr


def test_shells_complete_paths(web: str) -> None:
    assert (
        call("exec", web, "sh", "-c", "mkdir -p src/deep; touch src/a 'src/b c' .dot").returncode
        == 0
    )

    def asked(shell: str, line: str) -> list[str]:
        words = line.replace(":", " : ").strip(" ") if shell == "bash" else line
        place = len(words.split(" ")) - 1 + line.endswith(" ")
        variables = {"_SANDYARD_COMPLETE": f"complete_{shell}", "COMP_CWORD": str(place)}
        variables |= {"COMP_WORDS": words, "_TYPER_COMPLETE_ARGS": line}
        variables |= {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        done = call(env=variables)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode().splitlines()

    # bash has the colon in a word of its own, and puts the answer behind it.
    assert asked("bash", "sandyard cat web:") == ["src/"]
    assert asked("bash", "sandyard cat web:src/") == ["src/a", "src/b c", "src/deep/"]
    assert asked("bash", "sandyard cat web:src/a web:src/d") == ["src/deep/"]
    assert asked("bash", "sandyard cp web:src/a web:.") == [".dot"]
    assert asked("bash", "sandyard ls we") == ["web:"]
    assert asked("bash", "sandyard cat none:x") == []
    assert asked("fish", "sandyard cat web:src/d") == ["web:src/deep/"]
    assert "src/deep/" in "".join(asked("zsh", "sandyard cat web:src/d"))


def test_manifest_makes_workspace(home: Path) -> None:
    (home / "files").mkdir()
    (home / "files" / "given").write_text("given")
    manifest = {
        "entries": {
            "made/text": {"type": "file", "content": "made "},
            "from": {"type": "local_dir", "src": "files"},
        },
        "environment": {
            "value": {
                "GREETING": "hi",
                "TOLD": {"type": "secret", "value": "told"},
                "OURS": {"type": "secret", "env": "GIVEN"},
            }
        },
    }
    (home / "manifest.json").write_text(json.dumps(manifest))
    text = ["sh", "-c", "cat made/text from/given; echo $GREETING $TOLD $OURS"]
    ours = {"GIVEN": "ours"}
    # Sources begin where the manifest is, wherever it is named from.
    words = ["create", "--name", "one", "--manifest", f"{home}/manifest.json"]
    assert call(*words, env=ours).returncode == 0
    wanted = b"made givenhi told ours\n"
    assert call("exec", "one", *text).stdout == wanted
    words = ["run", "--manifest", "manifest.json", *text]
    assert call(*words, cwd=home, env=ours).stdout == wanted


def test_odd_manifest_is_explained(home: Path) -> None:
    before = os.listdir(home / "run")
    for text, said in (
        ('{"entries": {"a": {"type": "file", "conten": "x"}}}', "did you mean 'content'"),
        ('{"entries": {"a": {"type": "dir"}, "a": {"type": "dir"}}}', "'a' is there twice"),
        ('{"root": "relative"}', "root must be an absolute path"),
        ('{"entries": ', "line 1 column 13"),
        ("[]", "valid dictionary"),
    ):
        (home / "manifest.json").write_text(text)
        done = call("create", "--manifest", str(home / "manifest.json"))
        assert (done.returncode, done.stdout) == (125, b"")
        assert said in done.stderr.decode()
    assert os.listdir(home / "run") == before  # nothing was started for it
    for words in (["--manifest", "no"], ["--copy", ".", "--manifest", "manifest.json"]):
        done = call("run", *words, "true", cwd=home)
        assert done.returncode == 125
        assert b"--manifest" in done.stderr


def test_refusal_is_sentence(web: str) -> None:
    for words in (
        ["exec", web],
        ["exec", "other", "true"],
        ["exec", "--name", "x", web, "true"],
        ["exec", "--cwd", "/no/such", web, "true"],
        ["create", "--name", web],
        ["create", "--name", "no/name"],
        ["create", "--read", "/no/such/path"],
        ["logs", web, "nothing"],
        ["kill", web, "nothing"],
        ["rm"],
        ["rm", "other"],
        ["attach", web],
        ["shell", web],
        ["diff", web],
        ["create", "--try", "--copy", "."],
    ):
        done = call(*words)
        assert (done.returncode, done.stdout) == (125, b""), words
        assert done.stderr.startswith(b"sandyard: "), words
        assert b"Traceback" not in done.stderr, words


def test_option_after_session_is_told(web: str) -> None:
    for verb in ("exec", "shell"):
        done = call(verb, web, "--cwd", "src", "--", "true")
        assert done.returncode == 125
        assert b"--cwd stands after the session" in done.stderr
    assert call("exec", web, "--", "-x").returncode == 127  # a program


def test_error_is_one_line(web: str) -> None:
    done = call("ls", f"{web}:nothing")
    assert done.returncode == 125
    assert done.stderr.endswith(b"no such file or directory [exec_nonzero]\n")
    assert done.stderr.count(b"\n") == 1


def test_create_where_directory_is_gone(home: Path) -> None:
    gone = f"mkdir gone && cd gone && rmdir ../gone && exec {shlex.join(SANDYARD)} create --name x"
    done = subprocess.run(["sh", "-c", gone], cwd=home, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"x\n", b"")


def test_rm_removes_the_others_too(home: Path) -> None:
    for name in ("one", "two"):
        assert call("create", "--name", name).returncode == 0
    assert call("rm", "one", "nothing", "two").returncode == 125
    assert objects("ls") == []


def test_run_loads_none_of_it() -> None:
    code = (
        "import sys; from sandyard.cli.app import make_app; make_app(['run', '--', 'create']);"
        " print([m for m in sys.modules if '.server' in m or m == 'sandyard.cli.create'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_fork_is_told_from_its_parent(home: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    assert call("create", "--name", "own", "--workspace", str(project)).returncode == 0
    assert call("fork", "own", "--name", "copy").returncode == 0
    told = {line.split()[0]: line for line in call("ls").stdout.decode().splitlines()}
    assert told["own"].endswith(f"  {project}")
    assert told["copy"].endswith(f"  {project} (inside; a private copy)")
