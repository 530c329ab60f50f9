"""The look at this very host, which may be any, and at made-up PATHs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sandyard.platform import HostFacts, host_facts, is_beneath, is_within
from sandyard.platform.shared_etc import NETWORK_ETC, SHARED_ETC

SECRET_PATHS = ("/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/ssl/private/key",
                "/etc/gitconfig", "/etc/npmrc", "/etc/pip.conf", "/etc/machine-id",
                "/etc/passwd", "/etc/ssh/ssh_host_rsa_key", "/etc/krb5.keytab")  # fmt: skip


@pytest.fixture
def facts() -> HostFacts:
    return host_facts(os.environ)


def test_this_host(facts: HostFacts) -> None:
    assert facts.system == sys.platform
    assert facts.machine == os.uname().machine
    assert (facts.euid, facts.egid) == (os.geteuid(), os.getegid())
    assert facts.memory_bytes > 64 * 1024**2
    assert os.access(facts.shell, os.X_OK)
    assert facts.landlock_abi >= 0
    assert "/usr" in facts.system_trees
    hash(facts)


def test_sources_hold_no_symlink(facts: HostFacts) -> None:
    entries = (*facts.root_entries, *facts.etc, *facts.network_etc)
    sources = [entry.source for entry in entries if entry.link is None]
    sources += [*facts.toolchains.roots, *facts.system_trees]
    for source in sources:
        assert os.path.realpath(source) == source
        assert os.path.exists(source)


def test_links_do_the_same_inside(facts: HostFacts) -> None:
    for entry in (*facts.root_entries, *facts.etc):
        if entry.link is not None:
            assert (
                os.path.realpath(os.path.join(os.path.dirname(entry.path), entry.link))
                == entry.source
            )


def test_no_secret_is_shared(facts: HostFacts) -> None:
    shown = [entry.source for entry in (*facts.etc, *facts.network_etc)]
    for path in SECRET_PATHS:
        assert not any(is_within(path, tree) for tree in shown)


def test_shared_names_are_told_why() -> None:
    names = [name for name, _ in (*SHARED_ETC, *NETWORK_ETC)]
    assert len(set(names)) == len(names)
    for name, why in (*SHARED_ETC, *NETWORK_ETC):
        assert why
        assert not name.startswith("/")
        assert "private" not in name


def test_home_is_never_shown(facts: HostFacts) -> None:
    home = os.path.realpath(os.environ["HOME"])
    for root in facts.toolchains.roots:
        assert not is_within(home, root)
        assert not is_within(os.path.join(home, ".ssh"), root)


def test_search_path_is_visible(facts: HostFacts) -> None:
    shown = (
        *facts.system_trees,
        *(entry.path for entry in facts.root_entries),
        *facts.toolchains.roots,
        *(path for path, _ in facts.toolchains.links),
    )
    assert facts.search_path
    for path in facts.search_path:
        assert any(is_within(path, tree) for tree in shown)


def test_path_keeps_its_order(tmp_path: Path) -> None:
    for name in ("bin", "other"):
        (tmp_path / name).mkdir()
    path = f"relative:{tmp_path}/bin::/usr/bin:{tmp_path}/other:{tmp_path}/bin/:/gone/bin:/bin"
    found = host_facts({"PATH": path, "HOME": str(tmp_path)}).search_path
    assert found[:3] == (f"{tmp_path}/bin", "/usr/bin", "/bin")
    assert f"{tmp_path}/other" not in found
    assert len(set(found)) == len(found)


def test_answer_is_kept() -> None:
    environ = {"PATH": "/usr/bin", "HOME": "/nonexistent", "UNRELATED": "1"}
    assert host_facts(environ) is host_facts(environ | {"UNRELATED": "2"})
    assert host_facts(environ) is not host_facts(environ | {"PATH": "/bin"})


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HOME": ""},
        {"HOME": "relative", "PATH": "::", "VIRTUAL_ENV": "relative"},
        {"HOME": "/", "PATH": "/", "VIRTUAL_ENV": "/"},
        {"HOME": "/a\0b", "PATH": "/a\0b:/usr/bin", "VIRTUAL_ENV": "/a\0b"},
        {"HOME": "/" + "x" * 5000, "PATH": "/" + "y" * 5000, "RUSTUP_HOME": "/" + "z" * 5000},
        {"HOME": "/\udcff", "PATH": "/\udcff:/usr/bin", "RUSTUP_HOME": "x"},
        {"PATH": "/proc/self/root/usr/bin:/proc/self/cwd:/dev/fd"},
    ],
)
def test_odd_environments_are_no_error(environ: dict[str, str]) -> None:
    facts = host_facts(environ)
    assert "/usr/bin" in facts.search_path
    for root in facts.toolchains.roots:
        assert root not in ("/", "/proc", "/dev", "/root", "/home", "/tmp", "/etc")


def test_beneath_is_by_components() -> None:
    assert is_within("/home/evil", "/home/evil")
    assert is_within("/home/evil/x", "/home/evil")
    assert not is_within("/homeevil", "/home")
    assert is_within("/a", "/")
    assert is_within("/", "/")
    assert not is_beneath("/home", "/home")
    assert is_beneath("/home/x", "/home")
    assert is_beneath("/a", "/")
    assert not is_beneath("/", "/")
