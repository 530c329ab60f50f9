"""ResourceLimits: what they accept, what they refuse, and what a result says of them."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from sandyard import EnforcedLimit, ExecResult, LimitHit, Policy, PolicyError, ResourceLimits
from sandyard.resources import LIMIT_UNITS

GIB = 1024**3


def test_defaults() -> None:
    assert dataclasses.asdict(ResourceLimits()) == {
        "memory": None,
        "processes": 4096,
        "cpus": None,
        "cpu_time": None,
        "wall_time": None,
        "file_size": None,
        "workspace_size": None,
        "open_files": 4096,
        "scratch_size": None,
        "output": 16 * 1024**2,
    }


def test_equal_limits_are_one() -> None:
    limits = ResourceLimits(memory=GIB, cpus=1.5)
    assert limits == ResourceLimits(cpus=1.5, memory=GIB)
    assert hash(limits) == hash(ResourceLimits(cpus=1.5, memory=GIB))
    assert pickle.loads(pickle.dumps(limits)) == copy.deepcopy(limits) == limits  # noqa: S301
    assert Policy(limits=limits) == Policy(limits=copy.copy(limits))


def test_limits_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ResourceLimits().processes = 1  # type: ignore[misc]


def test_each_limit_has_a_unit() -> None:
    assert [field.name for field in dataclasses.fields(ResourceLimits)] == list(LIMIT_UNITS)
    held = EnforcedLimit(limit="cpus", value=1.5, by="cgroup v2 cpu", scope="session")
    assert (held.unit, held.strength, held.why) == ("processors", "enforced", "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memory", 0),
        ("memory", 16 * 1024**2 - 1),
        ("memory", 2**60 + 1),
        ("memory", float(GIB)),
        ("memory", "1G"),
        ("memory", True),
        ("processes", 7),
        ("processes", 4_194_305),
        ("processes", None),
        ("processes", 4096.0),
        ("cpus", 0),
        ("cpus", 0.009),
        ("cpus", -1),
        ("cpus", 8193),
        ("cpus", float("nan")),
        ("cpus", float("inf")),
        ("cpus", "1"),
        ("cpus", True),
        ("cpu_time", 0),
        ("cpu_time", 1.5),
        ("cpu_time", 366 * 24 * 3600),
        ("wall_time", 0),
        ("wall_time", -1.0),
        ("wall_time", float("nan")),
        ("wall_time", 366 * 24 * 3600.0),
        ("wall_time", "60"),
        ("file_size", 0),
        ("file_size", 1.0),
        ("workspace_size", 0),
        ("workspace_size", 2**61),
        ("open_files", 15),
        ("open_files", 1_048_577),
        ("open_files", None),
        ("scratch_size", 1024**2 - 1),
        ("scratch_size", "half"),
        ("output", -1),
        ("output", GIB + 1),
        ("output", None),
        ("output", 1.0),
    ],
)
def test_impossible_is_refused(field: str, value: object) -> None:
    with pytest.raises(PolicyError) as caught:
        ResourceLimits(**{field: value})  # type: ignore[arg-type]
    assert caught.value.context["field"] == field
    assert field in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memory", 16 * 1024**2),
        ("processes", 8),
        ("cpus", 1),
        ("cpus", 0.01),
        ("cpu_time", 1),
        ("wall_time", 0.001),
        ("wall_time", 60),
        ("file_size", 1),
        ("open_files", 16),
        ("scratch_size", 1024**2),
        ("output", 0),
    ],
)
def test_edges_are_accepted(field: str, value: float) -> None:
    assert getattr(ResourceLimits(**{field: value}), field) == value  # type: ignore[arg-type]


def test_result_shows_its_hits() -> None:
    hit = LimitHit(limit="memory", value=GIB, unit="bytes", by="cgroup v2 memory", detail="full")
    result = ExecResult(stdout=b"", stderr=b"", exit_code=-9, limit_hits=(hit,))
    assert result.limit_hits == (hit,)
    assert "limit_hits=(memory)" in repr(result)
    assert "limit_hits" not in repr(ExecResult(stdout=b"", stderr=b"", exit_code=0))
