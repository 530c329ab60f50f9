"""A start's report accounts for every step of its plan, also where a whole one was read before."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandyard.confinement import WorkspaceRoot, plan_session
from sandyard.errors import ResourceLimitError
from sandyard.plan import LaunchPlan
from sandyard.platform import host_facts
from sandyard.policy import Policy
from sandyard.process.init import InitProcess
from sandyard.process.report import untold_step
from sandyard.process.wire import Done, Started, Step, encode_records
from tests.house.leaks import find_descendants


def plan_for(path: Path) -> LaunchPlan:
    facts = path.stat()
    root = WorkspaceRoot(str(path), str(path), (facts.st_dev, facts.st_ino))
    return plan_session(Policy(), host_facts(os.environ), root, ())


@pytest.fixture
async def whole(tmp_path: Path) -> tuple[list[bytes], Started]:
    """The records of a plan, and what is told of its start."""
    async with await InitProcess.start(lambda: plan_for(tmp_path)) as init:
        return encode_records(plan_for(tmp_path), 1, 1), init.report


def changed(steps: tuple[Done, ...]) -> Iterator[tuple[Done, ...]]:
    """Reports that tell of a step less, of one twice, and of one that was left out."""
    for index, done in enumerate(steps):
        if done.step is not Step.USER:  # told only where init maps its users itself
            yield (*steps[:index], *steps[index + 1 :])
            yield (*steps[:index], done, *steps[index:])
        if done.step in (Step.PIVOT, Step.IDENTITY, Step.SECCOMP):
            yield (*steps[:index], done._replace(skipped=2), *steps[index + 1 :])


async def test_each_change_is_seen(whole: tuple[list[bytes], Started]) -> None:
    records, report = whole
    assert untold_step(records, report) is None
    for steps in changed(report.steps):
        assert untold_step(records, Started(steps)) is not None
        assert untold_step(records, report) is None


async def test_other_plans_are_looked_at(whole: tuple[list[bytes], Started]) -> None:
    records, report = whole
    assert untold_step(records, report) is None
    for index in range(len(records)):
        more = [*records[:index], records[-1], *records[index:]]
        assert untold_step(more, report) is not None


async def test_same_plan_elsewhere(whole: tuple[list[bytes], Started], tmp_path: Path) -> None:
    """What is told of one workspace is told of another in the same words."""
    _, report = whole
    other = tmp_path / "other"
    other.mkdir()
    assert untold_step(encode_records(plan_for(other), 2, 2), report) is None


async def test_start_that_fails_midway_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process comes up while its plan is encoded."""
    born: set[int] = set()
    before = find_descendants()

    def refuse(*_: object) -> list[bytes]:
        born.update(find_descendants() - before)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as shortage:
        shortage.setattr("sandyard.process.launching.encode_records", refuse)
        with pytest.raises(ResourceLimitError):
            await InitProcess.start(lambda: plan_for(tmp_path))
    assert born
    assert not find_descendants() & born
