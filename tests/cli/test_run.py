"""`sandyard run`: exit codes, what the options grant, and what is told."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cli.calling import SANDYARD, call, find_token, make_token


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "exit 255"], 255),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["/etc/passwd"], 126),
        (["no-such-program"], 127),
    ],
)
def test_exit_code_passes_through(command: list[str], code: int) -> None:
    assert call("run", "--", *command).returncode == code


def test_prints_nothing_of_its_own() -> None:
    done = call("run", "--", "true")
    assert (done.stdout, done.stderr) == (b"", b"")


def test_missing_program_is_named() -> None:
    assert call("run", "--", "no-such-program").stderr.startswith(b"sandyard: no-such-program: ")


def test_options_end_with_command() -> None:
    assert call("run", "echo", "--json", "-n").stdout == b"--json -n\n"


def test_words_are_not_text_for_shell() -> None:
    assert call("run", "--", "printf", "%s|", "a b", "$HOME", "", ";").stdout == b"a b|$HOME||;|"


def test_streams_stay_apart() -> None:
    done = call("run", "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["run", "--no-such-option", "true"],
        ["run", "--net", "internet", "--", "true"],
        ["run", "--timeout", "soon", "--", "true"],
        ["run", "--timeout", "0", "--", "true"],
        ["run", "--timeout", "nan", "--", "true"],
        ["run", "--read", "/no/such/path", "--", "true"],
        ["run", "--read", "", "--", "true"],
        ["run", "--write", "/usr", "--", "true"],
        ["run", "--env", "=value", "--", "true"],
        ["run", "--env", "HOME", "--", "true"],
        ["run", "--workspace", "/no/such/directory", "--", "true"],
        ["run", "--workspace", "/etc/passwd", "--", "true"],
        ["run", "--workspace", "/usr", "--", "true"],
        ["run", "--copy", "/no/such/directory", "--", "true"],
        ["run", "--copy", "/", "--", "true"],
        ["run", "--copy", ".", "--workspace", ".", "--", "true"],
        ["no-such-verb"],
    ],
)
def test_refusal_is_125_with_sentence(words: list[str]) -> None:
    done = call(*words)
    assert done.returncode == 125
    assert done.stdout == b""
    assert done.stderr.startswith(b"sandyard: ")
    assert b"Traceback" not in done.stderr


def test_refusal_names_its_code() -> None:
    done = call("run", "--timeout", "-1", "--", "true")
    assert done.stderr.rstrip().endswith(b"[argument_invalid]")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["exec"], b"Try 'sandyard exec --help'."),
        (["snapshot", "create"], b"Try 'sandyard snapshot create --help'."),
        (["no-such-verb"], b"Try 'sandyard --help'."),
        (["run", "--net", "wifi", "true"], b"'--net': 'wifi' is not one of 'none', 'host'."),
        (["run", "--timeout", "abc", "true"], b"'--timeout': it is no number"),
        (["run", "--timeout", "0", "true"], b"seconds; leave it out for no limit"),
        (["run", "--port", "x", "true"], b"'--port': it is no whole number"),
        (["run", "--port", "70000", "true"], b"'--port': it has to be less than or equal to 65535"),
        (["run", "--limit", "mem=1", "--", "true"], b"mem=1 names no limit; names are memory,"),
        (["run", "--limit", "memory", "--", "true"], b"--limit memory is no NAME=VALUE"),
        (["run", "--workspace", "/etc/passwd", "--", "true"], b"/etc/passwd: is no directory"),
    ],
)
def test_refusal_says_what_is_wrong(words: list[str], said: bytes) -> None:
    done = call(*words)
    assert (done.returncode, done.stdout) == (125, b"")
    assert said in done.stderr


def test_full_output_is_told() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*SANDYARD, "--version"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 125
    assert done.stderr == b"sandyard: its output can't be written: No space left on device\n"


# --- what may have been meant -----------------------------------------------------------------


def test_file_of_present_directory_is_told(tmp_path: Path) -> None:
    """Who forgets that the workspace is an empty one is told so, where a command failed."""
    (tmp_path / "there").write_text("text")
    said = b"sandyard: there is in your present directory, and the command's is an empty one;"
    done = call("run", "--", "cat", "there", cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert b"./there is in your" in call("run", "--", "./there", cwd=tmp_path).stderr
    for words in (
        ["-q", "--", "cat", "there"],
        ["--", "sh", "-c", ": there"],
        ["--", "sh", "-c", "exit 1", "elsewhere", ".", ".."],
        ["--copy", ".", "--", "sh", "-c", "exit 1", "there"],
        ["--workspace", ".", "--", "sh", "-c", "exit 1", "there"],
        ["--try", "--", "sh", "-c", "exit 1", "there"],
    ):
        assert b"present directory" not in call("run", *words, cwd=tmp_path).stderr, words


def test_text_for_shell_is_told() -> None:
    done = call("run", "echo one | cat")
    assert (done.returncode, done.stdout) == (127, b"")
    assert done.stderr.endswith(b"that is the name of one program; for a shell: sh -c 'TEXT'\n")


# --- workspaces -------------------------------------------------------------------------------


def test_default_workspace_is_empty_and_goes() -> None:
    done = call("run", "--", "sh", "-c", "pwd; ls -A; echo x > file")
    (root,) = done.stdout.decode().split()
    assert root.startswith(f"{tempfile.gettempdir()}/sandbox-local-")
    assert not os.path.exists(root)


def test_workspace_is_directory_itself(tmp_path: Path) -> None:
    (tmp_path / "given").write_text("old")
    done = call("run", "--workspace", ".", "--", "sh", "-c", "cat given; pwd > made", cwd=tmp_path)
    assert done.stdout == b"old"
    assert (tmp_path / "made").read_text() == f"{tmp_path}\n"
    assert (tmp_path / "made").stat().st_uid == os.getuid()


def test_workspace_may_be_behind_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    done = call("run", "--workspace", str(tmp_path / "link"), "--", "touch", "made")
    assert done.returncode == 0
    assert (tmp_path / "real" / "made").exists()


def test_from_a_directory_that_is_gone(tmp_path: Path) -> None:
    """What needs no present directory works; what does is refused, and says so."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "given").write_text("kept")
    gone = f"mkdir gone && cd gone && rmdir ../gone && exec {shlex.join(SANDYARD)} "
    for words, code in (
        (f"run --copy {tmp_path}/real -- cat given", 0),
        ("run --workspace . -- true", 125),
        ("run --read x -- true", 125),
    ):
        done = subprocess.run(
            ["sh", "-c", gone + words], cwd=tmp_path, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout) == (code, b"kept" if code == 0 else b"")
        assert code == 0 or b"your present directory can't be told" in done.stderr


def make_tree(top: Path) -> None:
    (top / "empty").mkdir(parents=True)
    (top / "bin").mkdir()
    (top / "bin" / "tool").write_text("#!/bin/sh\necho tool\n")
    (top / "bin" / "tool").chmod(0o755)
    (top / "plain").write_bytes(b"\x00\xff")
    (top / "link").symlink_to("plain")
    (top / ".hidden").write_text("h")


def test_copy_is_exact_and_private(tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_tree(source)
    text = "pwd; find . | sort; bin/tool; readlink link; od -An -tx1 plain; rm -r bin; echo > plain"
    done = call("run", "--copy", str(source), "--", "sh", "-c", text)
    assert done.stderr == b""
    root, *rest = done.stdout.decode().splitlines()
    assert rest == [
        ".", "./.hidden", "./bin", "./bin/tool", "./empty", "./link", "./plain",
        "tool", "plain", " 00 ff",
    ]  # fmt: skip
    assert not os.path.exists(root)
    assert (source / "plain").read_bytes() == b"\x00\xff"
    assert (source / "bin" / "tool").exists()


def test_copy_does_not_show_original(tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_tree(source)
    done = call("run", "--copy", str(source), "--", "ls", str(source))
    assert done.returncode != 0


def test_copy_of_itself_is_refused() -> None:
    done = call("run", "--copy", tempfile.gettempdir(), "--", "true")
    assert done.returncode == 125
    assert b"TMPDIR" in done.stderr


# --- grants, variables, network ---------------------------------------------------------------


def test_reads_and_writes(tmp_path: Path) -> None:
    for name in ("seen", "open", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    text = (
        "cat seen/file open/file; echo new > open/made; "
        "(echo no > seen/made) 2>/dev/null || echo refused; cat other/file 2>/dev/null || echo hidden"
    )
    done = call(
        "run", "--read", "seen", "--write", "open", "--", "sh", "-c", f"cd {tmp_path}; {text}",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout == b"seenopenrefused\nhidden\n"
    assert (tmp_path / "open" / "made").read_text() == "new\n"
    assert not (tmp_path / "seen" / "made").exists()


def test_relative_paths_count_from_caller(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("data")
    done = call(
        "run", "--copy", ".", "--read", "../data", "--", "cat", str(tmp_path / "data" / "file"),
        cwd=tmp_path / "project",
    )  # fmt: skip
    assert done.stdout == b"data"


def test_variables() -> None:
    done = call(
        "run", "--env", "A=1=2", "--env", "HOST", "--env", "UNSET", "--env", "B=", "--env", "A=3",
        "--", "sh", "-c", 'echo "$A $HOST ${UNSET-none} ${B-none} ${SECRET-none}"',
        env={"HOST": "host's", "SECRET": "key"},
    )  # fmt: skip
    assert done.stdout == b"3 host's none  none\n"


def test_network_is_loopback_alone() -> None:
    words = ("--", "cat", "/proc/net/dev")
    assert call("run", *words).stdout.count(b":") == 1
    with open("/proc/net/dev", "rb") as file:
        assert call("run", "--net", "host", *words).stdout.count(b":") == file.read().count(b":")


# --- the end ----------------------------------------------------------------------------------


def test_timeout_ends_whole_tree() -> None:
    token = make_token()
    text = (
        f"setsid sh -c 'trap \"\" TERM INT; while :; do sleep 1; done' {token} & echo up; sleep 60"
    )
    done = call("run", "--timeout", "0.5", "--", "sh", "-c", text, token)
    assert done.returncode == 124
    assert done.stdout == b"up\n"
    assert done.stderr.startswith(b"sandyard: timed out after 0.5 s")
    assert find_token(token) == []


def test_leftovers_end_with_command() -> None:
    token = make_token()
    done = call("run", "--", "sh", "-c", f"setsid sh -c 'sleep 60; :' {token} & echo up")
    assert done.stdout == b"up\n"
    assert find_token(token) == []


# --- json -------------------------------------------------------------------------------------


def test_json_tells_everything() -> None:
    done = call(
        "run", "--json", "--", "sh", "-c", "printf 'h\\303\\251'; printf '\\377' >&2; "
        "sleep 50 & sleep 0.05; exit 3",
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr == b""
    told = json.loads(done.stdout)
    assert told["exit_code"] == 3
    assert told["signal"] is None
    assert (told["stdout"], told["stdout_base64"]) == ("hé", None)
    assert (told["stderr"], told["stderr_base64"]) == (None, "/w==")
    assert (told["stdout_total"], told["stdout_dropped"]) == (3, 0)
    assert told["duration_s"] >= 0.05
    assert told["usage"]["max_rss_bytes"] > 0
    assert [left["name"] for left in told["leftovers"]] == ["sleep"]
    assert told["error"] is None


def test_json_counts_what_it_drops() -> None:
    size = 20 * 1024 * 1024
    told = json.loads(call("run", "--json", "--", "head", "-c", str(size), "/dev/zero").stdout)
    assert told["stdout_total"] == size
    assert len(told["stdout"]) + told["stdout_dropped"] == size
    assert told["stdout_dropped"] == 4 * 1024 * 1024


def test_json_of_signal() -> None:
    done = call("run", "--json", "--", "sh", "-c", "kill -9 $$")
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit_code"], told["signal"]) == (137, 137, 9)


def test_json_of_timeout() -> None:
    done = call("run", "--json", "--timeout", "0.3", "--", "sh", "-c", "echo part; sleep 9")
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit_code"], told["stdout"]) == (124, 124, "part\n")
    assert told["error"]["code"] == "exec_timeout"
    assert told["error"]["context"]["timeout_s"] == 0.3


def test_json_of_refusal() -> None:
    done = call("run", "--json", "--read", "/no/such/path", "--", "true")
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit_code"]) == (125, 125)
    assert told["error"]["code"] == "policy_invalid"
    assert told["error"]["context"]["field"] == "reads"
    assert done.stderr == b""


# --- around it --------------------------------------------------------------------------------


def test_help_and_version() -> None:
    assert b"run" in call().stdout
    assert b"--copy" in call("run", "--help").stdout
    assert call("--version").stdout.startswith(b"sandyard ")


def test_missing_typer_is_said(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(name='typer')\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = call("run", "--", "true", env={"PYTHONPATH": path})
    assert done.returncode == 2
    assert b"sandyard[cli]" in done.stderr
    assert b"Traceback" not in done.stderr


def test_interpreter_is_there_inside() -> None:
    done = call("run", "--", sys.executable, "-c", "import pydantic; print('found')")
    assert done.stdout == b"found\n"


# --- what it may touch, in options ----------------------------------------------------------------


def test_denied_path_is_closed(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    words = ["--workspace", ".", "--deny", "key", "--", "cat", "key"]
    done = call("run", *words, cwd=tmp_path)
    assert done.returncode == 1
    assert b"secret" not in done.stdout
    assert f"denied: Policy.deny names {tmp_path}/key".encode() in done.stderr


def test_protected_names_are_kept(tmp_path: Path) -> None:
    for name in (".envrc", "lock"):
        (tmp_path / name).write_text("old")
    text = "for f in .envrc lock; do (echo new > $f) 2>/dev/null && echo $f; done; true"

    def changed(*words: str) -> list[bytes]:
        return call(
            "run", "--workspace", ".", *words, "--", "sh", "-c", text, cwd=tmp_path
        ).stdout.split()

    assert changed() == [b"lock"]
    assert changed("--protect", "lock") == []
    assert changed("--no-protect") == [b".envrc", b"lock"]
    assert changed("--no-protect", "--protect", "lock") == [b".envrc"]


def test_refusals_name_options(tmp_path: Path) -> None:
    (tmp_path / ".envrc").write_text("old")
    text = "echo > .envrc; ls /dev/kvm; exit 1"
    said = call("run", "--workspace", ".", "--", "sh", "-c", text, cwd=tmp_path).stderr
    assert b"to allow it: --no-protect" in said
    assert b"to allow it: --device kvm" in said


def test_quiet_says_nothing_of_refusals() -> None:
    words = ("--", "cat", "/no/such")
    assert b"sandyard: /no/such" in call("run", *words).stderr
    assert b"sandyard" not in call("run", "--quiet", *words).stderr
    assert b"timed out" in call("run", "-q", "--timeout", "0.2", "--", "sleep", "60").stderr


def test_limits_bound_and_are_told() -> None:
    text = "ulimit -Hn; head -c 9000 /dev/zero > f"
    words = ("--limit", "file-size=4K", "--limit", "open_files=99", "--limit", "open_files=64")
    done = call("run", *words, "--", "sh", "-c", text)
    assert done.stdout == b"64\n"
    assert b"sandyard: limit file_size (4096 bytes): " in done.stderr
    told = json.loads(call("run", "--json", *words, "--", "sh", "-c", text).stdout)
    assert [(hit["limit"], hit["value"]) for hit in told["limit_hits"]] == [("file_size", 4096)]
    few = call(
        "run",
        "--limit",
        "processes=9",
        "--",
        "sh",
        "-c",
        "(sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 &); exit 1",
    )
    assert b"--limit processes=" in few.stderr


def test_home_can_be_the_workspace() -> None:
    text = 'test "$HOME" = "$PWD" && echo same'
    assert call("run", "--home", "workspace", "--", "sh", "-c", text).stdout == b"same\n"
    assert call("run", "--", "sh", "-c", text).stdout == b""


def test_unix_sockets_can_be_refused() -> None:
    code = "import socket; socket.socket(socket.AF_UNIX)"
    assert call("run", "--", sys.executable, "-c", code).returncode == 0
    done = call("run", "--syscalls", "no-unix-sockets", "--", sys.executable, "-c", code)
    assert b"Address family not supported" in done.stderr


def test_toolchains_can_be_left_out() -> None:
    done = call("run", "--no-toolchains", "--", "sh", "-c", f"test -e {sys.executable} || echo no")
    assert done.stdout in (b"no\n", b"" if sys.executable.startswith("/usr/") else b"no\n")


@pytest.mark.parametrize(
    "words",
    [
        ["--limit", "memory"],
        ["--limit", "memory=much"],
        ["--limit", "memory=1"],
        ["--limit", "processes=2K"],
        ["--limit", "room=1"],
        ["--limit", "cpus=fast"],
        ["--device", "disk"],
        ["--syscalls", "all"],
        ["--protect", "../x"],
        ["--deny", "/"],
        ["--home", "elsewhere"],
    ],
)
def test_impossible_permission_is_refused(words: list[str]) -> None:
    done = call("run", *words, "--", "true")
    assert done.returncode == 125
    assert done.stderr.startswith(b"sandyard: ")
    assert b"Traceback" not in done.stderr
