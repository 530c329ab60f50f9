"""The policy: what it accepts, what it refuses, and that it stays as it was made."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard.errors import ConfigurationError, PolicyError
from sandyard.planted import PROTECTED_NAMES
from sandyard.policy import INHERITED_VARIABLES, OWN_VARIABLES, Policy
from sandyard.resources import ResourceLimits


def test_default_grants_nothing() -> None:
    assert dataclasses.asdict(Policy()) == {
        "reads": (),
        "writes": (),
        "deny": (),
        "protect": PROTECTED_NAMES,
        "environment": (),
        "inherit": (),
        "network": "none",
        "toolchains": True,
        "home": "private",
        "syscalls": (),
        "devices": (),
        "require": (),
        "accept": (),
        "limits": dataclasses.asdict(ResourceLimits()),
        "unconfined": False,
    }


def test_paths_get_their_normal_form() -> None:
    policy = Policy(reads=("/srv//data/", "/srv/./data", "//opt"), writes=("/var/lib/x",))
    assert policy.reads == ("/srv/data", "/opt")
    assert policy.writes == ("/var/lib/x",)


def test_equal_policies_are_one() -> None:
    policy = Policy(reads=("/a",), environment=(("A", "1"),))
    assert policy == Policy(reads=("/a/",), environment=(("A", "1"),))
    assert hash(policy) == hash(Policy(reads=("/a/",), environment=(("A", "1"),)))
    assert pickle.loads(pickle.dumps(policy)) == policy  # noqa: S301
    assert copy.deepcopy(policy) == policy


def test_options_have_one_order() -> None:
    policy = Policy(syscalls=("no-unix-sockets", "ptrace", "no-unix-sockets"))
    assert policy == Policy(syscalls=("ptrace", "no-unix-sockets"))


def test_policy_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Policy().network = "host"  # type: ignore[misc]


def test_lists_become_tuples() -> None:
    policy = Policy(reads=["/a"], environment=[["A", "1"]], inherit=["B"])  # type: ignore[arg-type]
    assert policy == Policy(reads=("/a",), environment=(("A", "1"),), inherit=("B",))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reads", "/srv"),
        ("reads", b"/srv"),
        ("reads", ("srv",)),
        ("reads", ("~/srv",)),
        ("reads", ("",)),
        ("reads", ("/",)),
        ("reads", ("//",)),
        ("reads", ("/./",)),
        ("reads", ("/srv/../etc",)),
        ("reads", ("/srv/..",)),
        ("reads", ("/a\0b",)),
        ("reads", (b"/srv",)),
        ("reads", {"/srv"}),
        ("reads", None),
        ("writes", "/srv"),
        ("writes", ("srv",)),
        ("deny", "/srv"),
        ("deny", ("srv/..",)),
        ("deny", ("/",)),
        ("protect", ".git"),
        ("protect", ("/etc",)),
        ("protect", ("a/../b",)),
        ("protect", ("",)),
        ("protect", (1,)),
        ("environment", {"A": "1"}),
        ("environment", "A=1"),
        ("environment", ("A=1",)),
        ("environment", (("A",),)),
        ("environment", (("A", "1", "2"),)),
        ("environment", (("", "1"),)),
        ("environment", (("A=B", "1"),)),
        ("environment", (("A\0", "1"),)),
        ("environment", (("A", 1),)),
        ("environment", (("A", "1\0"),)),
        ("environment", ((b"A", "1"),)),
        ("environment", (("A", "1"), ("A", "2"))),
        ("inherit", "HOME"),
        ("inherit", ("",)),
        ("inherit", ("A=",)),
        ("inherit", (1,)),
        ("network", "all"),
        ("network", None),
        ("network", ["host"]),
        ("toolchains", 1),
        ("toolchains", "yes"),
        ("home", "/root"),
        ("syscalls", "ptrace"),
        ("syscalls", ("mount",)),
        ("syscalls", (1,)),
        ("syscalls", (["ptrace"],)),
        ("limits", None),
        ("limits", {"memory": 2**30}),
        ("limits", 2**30),
    ],
)
def test_impossible_is_refused(field: str, value: object) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy(**{field: value})  # type: ignore[arg-type]
    assert isinstance(caught.value, ConfigurationError)
    assert isinstance(caught.value, ValueError)
    assert caught.value.context["field"] == field


@pytest.mark.parametrize("name", OWN_VARIABLES)
def test_own_variables_are_not_inherited(name: str) -> None:
    with pytest.raises(PolicyError, match="give a value in environment"):
        Policy(inherit=(name,))


def test_values_stay_out_of_messages() -> None:
    with pytest.raises(PolicyError) as caught:
        Policy(environment=(("TOKEN", "hunter2\0"),))
    assert "hunter2" not in str(caught.value) + repr(caught.value.context)


def test_no_inherited_variable_is_a_secret() -> None:
    words = ("KEY", "TOKEN", "SECRET", "PASS", "AUTH", "CRED", "PROXY")
    assert not [name for name in INHERITED_VARIABLES for word in words if word in name]


pieces = st.sampled_from(["a", "b.c", ".d", "..e", "é", " ", ".", "", "..", "\0", "~", "\n"])
texts = st.lists(pieces, max_size=6).map(lambda parts: "/" + "/".join(parts))


@given(texts)
def test_every_path_is_normal_or_refused(text: str) -> None:
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or "\0" in text:
        with pytest.raises(PolicyError):
            Policy(reads=(text,))
        return
    (path,) = Policy(reads=(text,)).reads
    assert path == os.path.normpath(path) == "/" + "/".join(parts)
    assert Policy(writes=(path,)).writes == (path,)
