"""What one command gives back: streams, exit code, directory, environment, what it used."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path, PurePosixPath

import pytest

from sandyard import ArgumentError, UnixLocalSandboxSession
from tests.session.host import root_of

Session = UnixLocalSandboxSession


async def test_streams_and_code_are_told(session: Session) -> None:
    result = await session.exec("echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", 3)
    assert (result.stdout_total, result.stdout_dropped, result.leftovers) == (4, 0, ())
    assert not result.ok()


@pytest.mark.parametrize("number", [1, 2, 6, 9, 11, 13, 15, 34, 64])
async def test_signal_shows_as_negative_code(session: Session, number: int) -> None:
    script = (
        f"import os, signal; signal.signal({number}, 0) if {number} != 9 else 0; "
        f"os.kill(os.getpid(), {number})"
    )
    result = await session.exec("python3", "-c", script, shell=False)
    assert result.exit_code == -number


async def test_signals_are_as_in_a_fresh_process(session: Session) -> None:
    # Python ignores SIGPIPE, and a program may block what it likes; a command must not inherit it.
    result = await session.exec("grep -E '^Sig(Ign|Blk|Pnd)' /proc/self/status")
    values = {line.split(b":")[1].strip() for line in result.stdout.splitlines()}
    assert values == {b"0" * 16}
    result = await session.exec("yes | head -n 1; echo ${PIPESTATUS[0]}", shell=["bash", "-c"])
    assert result.stdout == b"y\n141\n"


async def test_command_leads_a_session_without_terminal(session: Session) -> None:
    script = "import os; print(os.getpid() == os.getsid(0) == os.getpgrp()); open('/dev/tty')"
    result = await session.exec("python3", "-c", script, shell=False)
    assert result.stdout == b"True\n"
    assert b"No such device or address" in result.stderr


async def test_nothing_but_streams_is_open(session: Session) -> None:
    held = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        result = await session.exec("ls /proc/self/fd", shell=False)
        result = await session.exec("ls", "/proc/self/fd", shell=False)
    finally:
        os.close(held)
    assert result.stdout.split() == [b"0", b"1", b"2", b"3"]  # 3 is how ls reads the directory


class TestWords:
    async def test_one_word_is_text_of_the_shell(self, session: Session) -> None:
        result = await session.exec("echo $((1 + 1)); echo 'a  b'")
        assert result.stdout == b"2\na  b\n"

    async def test_several_words_are_quoted(self, session: Session) -> None:
        words = ("printf", "%s|", "a b", "$HOME", "'", '"', "", "*", "\n", ";", "é\udcff")
        result = await session.exec(*words)
        expected = b"|".join(os.fsencode(word) for word in words[2:]) + b"|"
        assert result.stdout == expected
        assert (await session.exec(*words, shell=False)).stdout == expected

    async def test_another_shell_is_used(self, session: Session) -> None:
        result = await session.exec("echo ${BASH_VERSION:+bash}", shell=["bash", "-c"])
        assert result.stdout == b"bash\n"
        result = await session.exec("print(1)", shell=["python3", "-c"])
        assert result.stdout == b"1\n"

    async def test_path_is_a_word(self, session: Session) -> None:
        result = await session.exec("ls", "-d", Path("/usr"), shell=False)
        assert result.stdout == b"/usr\n"

    async def test_no_login_shell_reads_profile(self, session: Session) -> None:
        await session.exec("echo 'echo intruder' | tee ~/.profile ~/.bashrc ~/.bash_profile")
        assert (await session.exec("echo hi")).stdout == b"hi\n"

    async def test_text_is_not_rewritten(self, session: Session) -> None:
        root = root_of(session)
        (root / "tool").write_text("#!/bin/sh\necho ran $0 $1\n")
        (root / "tool").chmod(0o755)
        result = await session.exec(f"{root}/tool x")
        assert result.stdout.decode() == f"ran {root}/tool x\n"
        assert (await session.exec("./tool", "y", shell=False)).stdout == b"ran ./tool y\n"
        assert (await session.exec(f"{root}", shell=False)).exit_code == 126


class TestUnborn:
    async def test_missing_program_is_127(self, session: Session) -> None:
        for words in (["no-such-program"], ["./missing"], ["/no/such/program"], ["true/x"]):
            result = await session.exec(*words, shell=False)
            assert result.exit_code == 127, words
            assert words[0].encode() in result.stderr
            assert result.stdout == b""
        assert (await session.exec("no-such-program")).exit_code == 127

    async def test_unusable_program_is_126(self, session: Session) -> None:
        root = root_of(session)
        (root / "plain").write_text("#!/bin/sh\n")
        (root / "plain").chmod(0o644)
        (root / "formless").write_bytes(b"\x01\x02 not a program")
        (root / "formless").chmod(0o755)
        (root / "dangling").write_text("#!/no/such/interpreter\n")
        (root / "dangling").chmod(0o755)
        for name, code in (("plain", 126), ("formless", 126), ("dangling", 127), (".", 126)):
            result = await session.exec(f"./{name}", shell=False)
            assert result.exit_code == code, (name, result)
            assert result.stderr

    async def test_search_goes_on_past_unusable_one(self, session: Session) -> None:
        root = root_of(session)
        for place, mode in (("first", 0o644), ("second", 0o755)):
            (root / place).mkdir()
            (root / place / "found").write_text(f"#!/bin/sh\necho {place}\n")
            (root / place / "found").chmod(mode)
        path = f"{root}/absent:{root}/first:{root}/second:/usr/bin:/bin"
        result = await session.exec("found", shell=False, env={"PATH": path})
        assert result.stdout == b"second\n"
        result = await session.exec("found", shell=False, env={"PATH": f"{root}/first"})
        assert result.exit_code == 126

    async def test_empty_word_is_no_program(self, session: Session) -> None:
        assert (await session.exec("", shell=False)).exit_code == 127
        assert (await session.exec("")).exit_code == 0


class TestSize:
    async def test_words_of_200_kilobytes_arrive(self, session: Session) -> None:
        words = ["x" * 100_000, "y" * 100_000]
        result = await session.exec("printf", "%s%s", *words, shell=False)
        assert result.stdout == "".join(words).encode()

    async def test_one_word_above_the_kernel_limit_is_126(self, session: Session) -> None:
        # MAX_ARG_STRLEN of linux/binfmts.h: 32 pages, the NUL included.
        most = 32 * os.sysconf("SC_PAGESIZE") - 1
        result = await session.exec("printf", "%s", "x" * most, shell=False)
        assert result.stdout_total == most
        result = await session.exec("printf", "%s", "x" * (most + 1), shell=False)
        assert (result.exit_code, result.stdout) == (126, b"")
        assert b"too long" in result.stderr

    async def test_20000_words_arrive(self, session: Session) -> None:
        words = [str(number) for number in range(20_000)]
        result = await session.exec("printf", "%s\n", *words, shell=False)
        assert result.stdout.decode().split() == words

    @pytest.mark.parametrize("megabytes", [3, 7, 9, 40])
    async def test_too_many_words_are_126(self, session: Session, megabytes: int) -> None:
        words = ["x" * 99_999] * (10 * megabytes)
        result = await session.exec("true", *words, shell=False)
        assert result.exit_code == 126
        assert b"too long" in result.stderr
        assert await session.running()
        assert (await session.exec("echo on")).stdout == b"on\n"

    async def test_large_environment_arrives(self, session: Session) -> None:
        env = {f"V{number}": "x" * 1000 for number in range(500)}
        result = await session.exec("env | grep -c '^V[0-9]*=x*$'", env=env)
        assert result.stdout == b"500\n"


class TestDirectory:
    async def test_workspace_is_the_default(self, session: Session) -> None:
        root = str(root_of(session)).encode()
        for command in ("pwd", "true & pwd", "true; pwd", "pwd -P", "readlink /proc/self/cwd"):
            assert (await session.exec(command)).stdout == root + b"\n", command
        assert (await session.exec("pwd", shell=False)).stdout == root + b"\n"

    async def test_relative_and_absolute_are_entered(self, session: Session) -> None:
        root = root_of(session)
        (root / "a" / "b").mkdir(parents=True)
        (root / "link").symlink_to("a/b")
        for cwd, expected in (
            ("a", root / "a"),
            (PurePosixPath("a/b"), root / "a" / "b"),
            ("a/../a/./b", root / "a" / "b"),
            ("link/..", root / "a"),  # the kernel's "..", not the text's
            (root / "a", root / "a"),
            ("/usr", Path("/usr")),
            ("/", Path("/")),
            (".", root),
        ):
            result = await session.exec("pwd -P", cwd=cwd)
            assert result.stdout.decode() == f"{expected}\n", cwd

    async def test_odd_names_are_entered(self, session: Session) -> None:
        for name in ("a b", "'", "$HOME", "-n", "é", "\udcff", "line\nbreak"):
            (root_of(session) / name).mkdir()
            result = await session.exec("pwd -P", cwd=name)
            assert result.stdout == os.fsencode(root_of(session) / name) + b"\n"

    @pytest.mark.parametrize(
        "cwd", ["missing", "file", "/etc/passwd", "closed", "x" * 300, "/root/x"]
    )
    async def test_impossible_directory_is_refused(self, session: Session, cwd: str) -> None:
        (root_of(session) / "file").touch()
        await session.exec("mkdir closed && chmod 000 closed")
        for _ in range(3):
            with pytest.raises(ArgumentError, match="directory") as caught:
                await session.exec("touch ran", cwd=cwd)
            assert caught.value.context["argument"] == "cwd"
        assert not (root_of(session) / "ran").exists()
        await session.exec("chmod 700 closed")


class TestEnvironment:
    async def test_own_variables_are_set(self, session: Session) -> None:
        result = await session.exec("echo $HOME $USER $LOGNAME $TMPDIR; cd; pwd -P; ls -A")
        assert result.stdout == b"/home/agent agent agent /tmp\n/home/agent\n"

    async def test_variables_of_the_host_stay_out(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SECRET_KEY", "hidden")
        result = await session.exec("cat /proc/*/environ; env; export -p")
        assert b"hidden" not in result.stdout
        assert b"SECRET_KEY" not in result.stdout

    async def test_call_overrides_one_command(self, session: Session) -> None:
        env = {"HOME": "/tmp", "NEW": "é\udcff =\n", "EMPTY": "", "LANG": "C"}
        result = await session.exec('printf \'%s|\' "$HOME" "$NEW" "${EMPTY-unset}"', env=env)
        assert result.stdout == b"/tmp|" + os.fsencode("é\udcff =\n") + b"||"
        result = await session.exec("echo $HOME ${NEW-unset}")
        assert result.stdout == b"/home/agent unset\n"

    async def test_path_of_the_call_finds_programs(self, session: Session) -> None:
        (root_of(session) / "own").write_text("#!/bin/sh\necho own\n")
        (root_of(session) / "own").chmod(0o755)
        path = {"PATH": f"{root_of(session)}:/usr/bin:/bin"}
        assert (await session.exec("own", env=path, shell=False)).stdout == b"own\n"
        assert (await session.exec("own", shell=False)).exit_code == 127


class TestUsage:
    async def test_busy_loop_shows(self, session: Session) -> None:
        script = "import time\nwhile time.process_time() < 0.2: pass"
        result = await session.exec("python3", "-c", script, shell=False)
        assert result.usage is not None
        assert 0.15 < result.usage.user_s + result.usage.system_s < 5
        assert result.duration_s > 0.15

    async def test_memory_shows(self, session: Session) -> None:
        result = await session.exec("python3 -c 'x = b\"x\" * 100_000_000'")
        assert result.usage is not None
        assert 90e6 < result.usage.max_rss_bytes < 500e6

    async def test_idle_command_uses_little(self, session: Session) -> None:
        result = await session.exec("sleep", "0.1", shell=False)
        assert result.usage is not None
        assert result.usage.user_s + result.usage.system_s < 0.1
        assert 0.1 <= result.duration_s < 5


async def test_64_at_once_are_kept_apart(session: Session) -> None:
    async def echo(number: int) -> tuple[bytes, bytes, int]:
        text = f"cat; echo {number} >&2; exit {number}"
        result = await session.exec(text, stdin=f"in {number}".encode())
        return result.stdout, result.stderr, result.exit_code

    results = await asyncio.gather(*map(echo, range(64)))
    assert results == [(f"in {n}".encode(), f"{n}\n".encode(), n) for n in range(64)]


async def test_sessions_are_apart(session: Session) -> None:
    result = await session.exec("sleep 5 & echo $!; ls -d /proc/[0-9]* | wc -l")
    assert len(result.leftovers) == 1
    assert int(result.stdout.split()[1]) < 10
