"""The search for toolchains, on made-up trees with credentials beside everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandyard.platform.facts import Toolchains
from tests.platform.trees import SECRETS, find, make, make_venv, shown


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    make(home, *SECRETS)
    return home


def secrets_shown(home: Path, found: Toolchains) -> list[str]:
    return [name for name in SECRETS if shown(found, home / name)]


def test_system_directories_are_not_toolchains(home: Path) -> None:
    found = find(home, "/usr/bin", "/bin", "/usr/local/bin", "/nowhere/bin", "relative", "")
    assert found.roots == ()
    assert found.links == ()


def test_virtual_environment_and_its_base(home: Path, tmp_path: Path) -> None:
    base = home / ".pyenv/versions/3.12.1"
    make(base, "bin/python3.12", "lib/python3.12/os.py", "include/")
    make(home / ".pyenv", "libexec/pyenv", "shims/python", "version")
    make_venv(tmp_path / "venv", f"{base}/bin", f"{base}/bin/python3.12")
    found = find(home, tmp_path / "venv/bin")
    assert found.roots == (str(home / ".pyenv"), str(tmp_path / "venv"))
    assert found.variables == (("PYENV_ROOT", str(home / ".pyenv")),)
    assert secrets_shown(home, found) == []


def test_every_link_to_the_base_is_followed(home: Path, tmp_path: Path) -> None:
    # venv -> ~/.local/bin/python3.12 -> uv's versioned directory, itself behind a short name
    real = home / ".local/share/uv/python/cpython-3.12.1-linux"
    make(real, "bin/python3.12", "bin/python3", "lib/python3.12/os.py")
    real.with_name("cpython-3.12-linux").symlink_to(real.name)
    make(home, ".local/bin/tool")
    (home / ".local/bin/python3.12").symlink_to(
        "../share/uv/python/cpython-3.12-linux/bin/python3.12"
    )
    make_venv(tmp_path / "venv", f"{home}/.local/bin", f"{home}/.local/bin/python3.12")
    found = find(home, tmp_path / "venv/bin")
    assert found.roots == (
        str(home / ".local/bin"),
        str(home / ".local/share/uv/python"),
        str(tmp_path / "venv"),
    )
    assert secrets_shown(home, found) == []


def test_environment_in_a_project_shows_only_code(home: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    make(project, ".git/config", ".env", "src/secret.py")
    make_venv(project, "/usr/bin", "/usr/bin/python3")
    found = find(home, project / "bin")
    assert found.roots == tuple(str(project / part) for part in ("bin", "lib", "pyvenv.cfg"))
    assert found.links == ((str(project / "lib64"), str(project / "lib")),)


def test_environment_in_home_shows_only_code(home: Path) -> None:
    make_venv(home, "/usr/bin", "/usr/bin/python3")
    found = find(home, home / "bin")
    assert str(home) not in found.roots
    assert secrets_shown(home, found) == []
    assert shown(found, home / "bin/pip")


def test_registry_tokens_are_masked(home: Path, tmp_path: Path) -> None:
    make(home, ".pyenv/versions/3/bin/python3", ".pyenv/libexec/pyenv")
    base = home / ".pyenv/versions/3/bin"
    make_venv(tmp_path / "venv", str(base), str(base / "python3"))
    make(tmp_path / "venv", "pip.conf", "etc/npmrc")
    found = find(home, tmp_path / "venv/bin")
    assert found.masks == (str(tmp_path / "venv/etc/npmrc"), str(tmp_path / "venv/pip.conf"))


@pytest.mark.parametrize("shown_by", ["shims", "bin", "versions/3.12.1/bin", "plugins/v/shims"])
def test_pyenv_is_shown_whole(home: Path, shown_by: str) -> None:
    root = home / ".pyenv"
    make(root, "libexec/pyenv", "shims/", "bin/pyenv", "plugins/v/shims/", ".git/config")
    make(root, "versions/3.12.1/bin/python3", "versions/3.12.1/lib/", "versions/3.12.1/pip.conf")
    found = find(home, root / shown_by)
    assert found.roots == (str(root),)
    assert found.variables == (("PYENV_ROOT", str(root)),)
    assert secrets_shown(home, found) == []


def test_cargo_without_its_credentials(home: Path) -> None:
    make(home, ".cargo/bin/cargo", ".cargo/bin/rustup", ".cargo/config.toml")
    make(home, ".rustup/toolchains/stable/bin/rustc", ".rustup/settings.toml")
    found = find(home, home / ".cargo/bin")
    assert found.roots == (str(home / ".cargo/bin"), str(home / ".rustup"))
    assert found.variables == (("RUSTUP_HOME", str(home / ".rustup")),)
    assert not shown(found, home / ".cargo/config.toml")
    assert secrets_shown(home, found) == []


def test_rustup_is_where_it_says(home: Path, tmp_path: Path) -> None:
    make(home, ".cargo/bin/cargo", ".cargo/bin/rustup", ".rustup/toolchains/old/")
    make(tmp_path, "rust/toolchains/stable/bin/rustc")
    found = find(home, home / ".cargo/bin", RUSTUP_HOME=str(tmp_path / "rust"))
    assert found.roots == (str(home / ".cargo/bin"), str(tmp_path / "rust"))
    assert found.variables == (("RUSTUP_HOME", str(tmp_path / "rust")),)


def test_nvm_shows_versions(home: Path) -> None:
    root = home / ".nvm"
    make(root, "nvm.sh", "alias/default", ".npmrc", ".git/config")
    make(root, "versions/node/v20/bin/node", "versions/node/v20/lib/node_modules/npm/x.js")
    found = find(home, root / "versions/node/v20/bin")
    assert found.roots == (str(root / "alias"), str(root / "versions"))
    assert secrets_shown(home, found) == []


def test_node_prefix_in_local(home: Path) -> None:
    make(home, ".local/bin/tsc", ".local/lib/node_modules/typescript/x.js")
    found = find(home, home / ".local/bin")
    assert found.roots == (str(home / ".local/bin"), str(home / ".local/lib/node_modules"))
    assert secrets_shown(home, found) == []


def test_local_bin_brings_what_its_links_need(home: Path) -> None:
    make_venv(home / ".local/share/uv/tools/ruff", "/usr/bin", "/usr/bin/python3")
    make(home, ".local/share/uv/tools/ruff/bin/ruff", ".local/bin/script")
    (home / ".local/bin/ruff").symlink_to(home / ".local/share/uv/tools/ruff/bin/ruff")
    (home / ".local/bin/leak").symlink_to(home / ".ssh/id_ed25519")
    (home / ".local/bin/app").symlink_to(home / "projects/app/.env")
    (home / ".local/bin/loop").symlink_to("loop")
    found = find(home, home / ".local/bin")
    assert found.roots == (str(home / ".local/bin"), str(home / ".local/share/uv/tools/ruff"))
    assert secrets_shown(home, found) == []


def test_conda_go_jdk_and_rust(home: Path, tmp_path: Path) -> None:
    make(tmp_path, "conda/conda-meta/", "conda/bin/python3", "conda/.condarc", "conda/condabin/")
    make(tmp_path, "go/bin/go", "go/pkg/tool/", "jdk/bin/java", "jdk/lib/modules")
    make(tmp_path, "rust/bin/rustc", "rust/lib/rustlib/")
    found = find(
        home, *(tmp_path / name for name in ("conda/condabin", "go/bin", "jdk/bin", "rust/bin"))
    )
    assert found.roots == tuple(
        str(tmp_path / name) for name in ("conda", "go", "jdk", "rust/bin", "rust/lib")
    )
    assert found.masks == (str(tmp_path / "conda/.condarc"),)


def test_homebrew_without_the_data_of_services(home: Path, tmp_path: Path) -> None:
    brew = tmp_path / "linuxbrew"
    make(brew, "Cellar/git/2/bin/git", "bin/", "opt/", "etc/openssl@3/cert.pem", "etc/my.cnf")
    make(brew, "var/postgres/data")
    found = find(home, brew / "bin")
    assert found.roots == tuple(
        str(brew / part) for part in ("Cellar", "bin", "etc/openssl@3", "opt")
    )


def test_stranger_in_home_is_shown_only_as_bin(home: Path) -> None:
    make(home, "bin/x", "tools/x", ".bun/bin/bun", "projects/app/node_modules/.bin/x")
    found = find(home, home / "bin", home / "tools", home / ".bun/bin",
                 home / "projects/app/node_modules/.bin", home)  # fmt: skip
    assert found.roots == (str(home / ".bun/bin"), str(home / "bin"))
    assert secrets_shown(home, found) == []


@pytest.mark.parametrize(
    "path", ["/", "/home", "/root", "/tmp", "/etc", "/proc/self", "/dev", "/sys", "/var", "/run"]
)
def test_these_are_never_shown(home: Path, path: str) -> None:
    assert find(home, path).roots == ()


def test_home_that_is_the_prefix_is_not_shown(tmp_path: Path) -> None:
    make(tmp_path, "conda-meta/", "bin/x", ".ssh/id")
    found = find(tmp_path, tmp_path / "bin")
    assert found.roots == (str(tmp_path / "bin"),)


def test_credentials_in_a_home_that_is_visible_are_masked(tmp_path: Path) -> None:
    from sandyard.platform.toolchains import ToolchainSearch, find_toolchains  # noqa: PLC0415

    make(tmp_path, "app/.ssh/id", "app/.netrc", "app/main.py")
    search = ToolchainSearch((), str(tmp_path / "app"), {}, (str(tmp_path),))
    assert find_toolchains(search).masks == (
        str(tmp_path / "app/.netrc"),
        str(tmp_path / "app/.ssh"),
    )


def test_name_through_a_symlink_works(home: Path, tmp_path: Path) -> None:
    make_venv(tmp_path / "data/venv-1", "/usr/bin", "/usr/bin/python3")
    (home / "venv").symlink_to(tmp_path / "data/venv-1")
    found = find(home, home / "venv/bin")
    assert found.roots == (str(tmp_path / "data/venv-1"),)
    assert found.links == ((str(home / "venv"), str(tmp_path / "data/venv-1")),)


def test_name_through_a_linked_home_works(home: Path, tmp_path: Path) -> None:
    make(home, ".pyenv/libexec/pyenv", ".pyenv/shims/python")
    (tmp_path / "h").symlink_to(home)
    found = find(home, tmp_path / "h/.pyenv/shims")
    assert found.roots == (str(home / ".pyenv"),)
    assert found.links == ((str(tmp_path / "h/.pyenv"), str(home / ".pyenv")),)


def test_name_of_a_system_directory_works(home: Path) -> None:
    (home / "profile").symlink_to("/usr/bin")
    found = find(home, home / "profile")
    assert found.roots == ()
    assert found.links == ((str(home / "profile"), "/usr/bin"),)


def test_odd_trees_are_absent(home: Path, tmp_path: Path) -> None:
    make(tmp_path, "venv/bin/", "a-file")
    (tmp_path / "venv/pyvenv.cfg").write_bytes(b"\xff\xfehome\n=\nhome =\n")
    (tmp_path / "venv/bin/python").symlink_to("python")
    (tmp_path / "loop").symlink_to("loop")
    found = find(home, tmp_path / "venv/bin", tmp_path / "loop/bin", tmp_path / "a-file",
                 "/nowhere")  # fmt: skip
    assert found.roots == (str(tmp_path / "venv"),)


@pytest.mark.parametrize(
    ("marks", "program", "secret"),
    [
        (("nvm.sh",), "versions/node/v20/bin/node", "versions/node/v20/etc/npmrc"),
        (("nvm.sh",), "versions/node/v20/bin/node", "versions/node/v18/etc/npmrc"),
        (("libexec/pyenv",), "versions/3.12/bin/python3", "versions/3.12/pip.conf"),
        (("libexec/pyenv",), "versions/3.12/bin/python3", "versions/3.12/envs/work/pip.conf"),
        (("libexec/rbenv",), "versions/3.3/bin/ruby", "versions/3.3/credentials"),
        (("conda-meta/history",), "bin/python3", "envs/work/.condarc"),
    ],
)
def test_secrets_of_what_is_installed(
    tmp_path: Path, marks: tuple[str, ...], program: str, secret: str
) -> None:
    root = tmp_path / "manager"
    make(root, *marks, program, secret, f"{secret}.md")
    (root / program).chmod(0o755)
    found = find(tmp_path, (root / program).parent)
    assert shown(found, root / program)
    assert not shown(found, root / secret)
    assert shown(found, root / f"{secret}.md")
