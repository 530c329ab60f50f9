"""Init's decoders under the fuzzer of native/fuzz: what broke them once, and a moment of more."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.seconds import fuzz_seconds
from tests.fuzz.seeds import CORPUS, make_seeds

FUZZ = Path(__file__).parents[2] / "native" / "fuzz"
CORPUS_BYTES = 200 * 1024

# Wants four bytes in a row, which blind chance finds once in four thousand million runs.
PLANTED = """
#include <stdint.h>
#include <stdlib.h>
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 3 && data[0] == 'P')
        if (data[1] == 0xb7)
            if (data[2] == 0x5c)
                if (data[3] == 0x81)
                    abort();
    return 0;
}
"""


def can_sanitize(place: Path) -> bool:
    """Whether the compiler comes with sanitizers; musl's do not."""
    (place / "try.c").write_text("int main(void) { return 0; }\n")
    flags = ["-fsanitize=address,undefined", "-fsanitize-coverage=trace-pc", "-c", "try.c"]
    compiler = os.environ.get("CC") or "cc"
    built = subprocess.run([compiler, *flags], cwd=place, capture_output=True, check=False)
    linked = subprocess.run(
        [compiler, "-fsanitize=address,undefined", "-o", "try", "-x", "c", "try.c"],
        cwd=place,
        capture_output=True,
        check=False,
    )
    return built.returncode == linked.returncode == 0


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The fuzzer, built with its target."""
    place = tmp_path_factory.mktemp("fuzz")
    if not can_sanitize(place):
        pytest.skip("the C compiler has no sanitizers")
    subprocess.run(
        ["make", "--silent", "-C", str(FUZZ), f"OUT={place}"], check=True, capture_output=True
    )
    yield place / "fuzz-decode"
    shutil.rmtree(place)


def run_fuzzer(program: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Runs it to its end."""
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)


def test_corpus_is_current() -> None:
    seeds = {name: (CORPUS / name).read_bytes() for name in make_seeds()}
    assert seeds == make_seeds(), "the wire has changed: python -m tests.fuzz.seeds"
    assert sum(file.stat().st_size for file in CORPUS.iterdir()) < CORPUS_BYTES


def test_corpus_breaks_nothing(fuzzer: Path, tmp_path: Path) -> None:
    done = run_fuzzer(fuzzer, "-w", tmp_path, CORPUS)
    assert done.returncode == 0, done.stderr


def test_moment_breaks_nothing(fuzzer: Path, tmp_path: Path) -> None:
    done = run_fuzzer(fuzzer, "-t", int(fuzz_seconds()), "-w", tmp_path, CORPUS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_seed_repeats_a_run(fuzzer: Path, tmp_path: Path) -> None:
    words = ("-n", 1000, "-s", 3, "-w", tmp_path, CORPUS)
    first, second = (run_fuzzer(fuzzer, *words).stdout for _ in range(2))
    told = re.compile(r"\d+ edges, .*")
    assert told.findall(first) == told.findall(second) != []


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_long_run_breaks_nothing(fuzzer: Path) -> None:
    seed = int.from_bytes(os.urandom(4))
    done = run_fuzzer(fuzzer, "-t", int(fuzz_seconds(soak=True)), "-s", seed, CORPUS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_fuzzer_finds_what_is_planted(fuzzer: Path, tmp_path: Path) -> None:
    source, planted, found = tmp_path / "planted.c", tmp_path / "planted", tmp_path / "found"
    source.write_text(PLANTED)
    found.mkdir()
    (found / "seed").write_bytes(b"Pnothing")
    place = fuzzer.parent
    compiler, drivers = os.environ.get("CC") or "cc", [place / "drive.o", place / "mutate.o"]
    flags = ["-fno-pie", "-no-pie", "-fsanitize-coverage=trace-pc"]
    subprocess.run([compiler, *flags, "-o", planted, source, *drivers], check=True)
    assert run_fuzzer(planted, found).returncode == 0
    done = run_fuzzer(planted, "-t", 30, "-s", 7, found)
    (crash,) = found.glob("crash-*")
    assert done.returncode == 1
    assert f"replay:  {planted} {crash}" in done.stdout
    assert crash.read_bytes().startswith(b"P\xb7\x5c\x81")
    again = run_fuzzer(planted, crash)
    assert again.returncode == 1
    assert "1 inputs given" in again.stdout
