"""System calls that nobody knows yet, and those of other machines, get the answer of old kernels."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.escape.inside import run_host, run_python, sandbox

ENOSYS = 38
X86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="calls of x86_64")

# getpid (20) and mkdir (39) as 32-bit programs make them.
COMPATIBLE = """
int main(int argc, char **argv) {
    static char name[] = "made";
    long result;
    (void)argv;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
    return argc > 9 && name[0] ? 1 : result > 0 ? 42 : 1;
}
"""


async def ask(numbers: str) -> dict[int, int]:
    """What calls say inside, by their numbers."""
    code = f"for n in {numbers}: sys.stdout.write(f'{{n}} {{-call(n, 0, 0, 0, 0, 0, 0)}}\\n')"
    async with sandbox() as session:
        result = await run_python(session, f"tell = lambda *words: None\n{code}")
    return dict(map(int, line.split()) for line in result.stdout.splitlines())  # type: ignore[misc]


async def test_unknown_numbers() -> None:
    said = await ask("[*range(480, 1200), 4095, 2**20, 2**31 - 1]")
    assert set(said.values()) == {ENOSYS}


async def test_calls_behind_pointers() -> None:
    assert set((await ask("(435, 437)")).values()) == {ENOSYS}


@X86
async def test_calls_of_x32() -> None:
    # Older kernels take 512 to 547 without the bit that marks them.
    said = await ask("[0x40000000 + n for n in (*range(0, 340), *range(512, 548))]")
    assert set(said.values()) == {ENOSYS}
    assert set((await ask("range(512, 548)")).values()) == {ENOSYS}


@X86
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
async def test_calls_of_32_bits(tmp_path: Path) -> None:
    source, program = tmp_path / "p.c", tmp_path / "p"
    source.write_text(COMPATIBLE)
    run_host("cc", "-o", program, source)
    control = run_host(program, check=False)
    async with sandbox(root=tmp_path) as session:
        result = await session.exec("./p", shell=False)
    assert result.exit_code == -signal.SIGSYS, result
    if control.returncode != 42:
        pytest.skip(f"its control fails: this kernel has no 32-bit calls ({control.returncode})")
