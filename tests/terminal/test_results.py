"""What a terminal's command has done: limits, refused calls and denials, as those of `exec`."""

from __future__ import annotations

from sandyard import Policy, ResourceLimits, UnixLocalSandboxClient

LIMITS = ResourceLimits(wall_time=30, cpu_time=1)
REFUSED = "import ctypes; ctypes.CDLL(None).unshare(0x10000000)"


async def test_results_tell_what_was_refused() -> None:
    client = UnixLocalSandboxClient(policy=Policy(limits=LIMITS))
    session = await client.create()
    async with session:
        await session.write("try.py", REFUSED.encode())
        denied = await session.terminal("trap '' HUP; python3 try.py; sleep 60 & cat /etc/shadow")
        result = await denied.result()
        exec_result = await session.exec("python3 try.py; cat /etc/shadow")
        assert (result.exit_code, result.denials) == (1, exec_result.denials)
        assert [denial.subject for denial in result.denials] == ["/etc/shadow", "unshare"]
        assert result.refused_calls == exec_result.refused_calls
        assert [one.name in {"sh", "sleep"} for one in result.leftovers] == [
            True
        ]  # before its exec, too
        assert (result.stdout, result.stdout_total) == (b"", denied.scrollback().total)
        assert result.usage is not None
        assert result.duration_s > 0
        assert await denied.result() is result

        spinning = await session.terminal("exec python3 -c 'while True: pass'")
        assert [hit.limit for hit in (await spinning.result()).limit_hits] == ["cpu_time"]
        fine = await (await session.terminal("true")).result()
        assert (fine.exit_code, fine.limit_hits, fine.denials, fine.refused) == (0, (), (), 0)
        missing = await (await session.terminal("no-such-program", shell=False)).result()
        assert missing.exit_code == 127
    await client.delete(session)


async def test_time_of_a_session_is_told() -> None:
    client = UnixLocalSandboxClient(policy=Policy(limits=ResourceLimits(wall_time=0.2)))
    session = await client.create()
    async with session:
        result = await (await session.terminal("sleep 60")).result()
        assert (result.exit_code, [hit.limit for hit in result.limit_hits]) == (-9, ["wall_time"])
        own = await (await session.terminal("sleep 60", timeout=0.1)).result()
        assert (own.exit_code, own.limit_hits) == (-9, ())
    await client.delete(session)
