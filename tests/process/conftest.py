"""Owns the plan, and the started sandbox, that the tests of the native program speak to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandyard.confinement import WorkspaceRoot, plan_session
from sandyard.plan import HostIdentity
from sandyard.platform import host_facts
from sandyard.policy import Policy
from sandyard.process.identity import IdentityLease
from sandyard.process.wire import Started, encode_plan
from tests.process.protocol import Record, split_records
from tests.process.raw_init import RawInit


@pytest.fixture
def records(tmp_path: Path) -> Iterator[list[Record]]:
    """The plan of an ordinary session, as records; root's identity is leased while it is used."""
    facts = tmp_path.stat()
    root = WorkspaceRoot(str(tmp_path), str(tmp_path), (facts.st_dev, facts.st_ino))
    plan = plan_session(Policy(), host_facts(os.environ), root, ())
    if plan.identity.host is HostIdentity.CALLER:
        yield split_records(encode_plan(plan, os.geteuid(), os.getegid()))
        return
    with IdentityLease.take() as lease:
        yield split_records(encode_plan(plan, lease.uid, lease.uid))


@pytest.fixture
def started(records: list[Record]) -> Iterator[RawInit]:
    """A sandbox whose walls are up."""
    with RawInit() as init:
        init.start(records)
        assert isinstance(init.event(), Started)
        yield init
