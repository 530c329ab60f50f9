"""The rules of the search for toolchains: what is which kind, and what is never shown.

A toolchain is recognised by what lies in its root, seen from a directory of programs ("D", such as
an entry of PATH). What is shown of it is its root, or the parts of it that hold programs and
libraries where credentials or a person's own files may lie beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "CODE_PARTS",
    "CREDENTIAL_FILES",
    "FOREIGN_TREES",
    "KINDS",
    "NEVER_SHOWN",
    "NEVER_SHOWN_BENEATH",
    "PERSONAL_MARKS",
    "PROJECT_MARKS",
    "VENV",
    "Kind",
]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of toolchain.

    Attributes:
        name: what people call it.
        levels: how many directories above D its root may be.
        marks: what exists in its root.
        suffix: how the path of its root ends.
        parts: what is shown, relative to the root; empty for the whole root.
        strangers: names that, lying in the root, make it more than a toolchain: then only
            ``CODE_PARTS`` of it are shown.
        variable: the environment variable that names the root.
        installed: where beneath the root it installs others, each with a root of its own.
    """

    name: str
    levels: int
    marks: tuple[str, ...] = ()
    suffix: str = ""
    parts: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    variable: str = ""
    installed: tuple[str, ...] = ()


PERSONAL_MARKS: Final = (
    ".aws",
    ".config",
    ".docker",
    ".env",
    ".git-credentials",
    ".gnupg",
    ".kube",
    ".netrc",
    ".ssh",
)
"""What lies in somebody's home or project, and in no toolchain."""

PROJECT_MARKS: Final = (".git", "package.json", "pyproject.toml", "setup.py")
"""What lies in a project: a virtual environment may have been made in its root."""

CODE_PARTS: Final = ("bin", "include", "lib", "lib64", "libexec", "pyvenv.cfg", "share")
"""What is shown of a root that also holds other things."""

VENV: Final = Kind(
    "virtual environment", 1, ("pyvenv.cfg",), strangers=PERSONAL_MARKS + PROJECT_MARKS
)

KINDS: Final = (
    # The first that fits wins: a virtual environment may lie in any of the others, and a manager
    # of versions is shown whole rather than one of its versions, since its programs need the rest.
    VENV,
    Kind("conda", 1, ("conda-meta",), strangers=PERSONAL_MARKS, installed=("envs/*",)),
    Kind(
        "pyenv",
        5,
        ("libexec/pyenv",),
        strangers=PERSONAL_MARKS,
        variable="PYENV_ROOT",
        installed=("versions/*", "versions/*/envs/*"),
    ),
    Kind(
        "rbenv",
        5,
        ("libexec/rbenv",),
        strangers=PERSONAL_MARKS,
        variable="RBENV_ROOT",
        installed=("versions/*",),
    ),
    Kind(
        "nvm",
        4,
        ("nvm.sh", "versions"),
        parts=("versions", "alias"),
        installed=("versions/*/*",),
    ),
    Kind("uv", 2, suffix="/uv/python", installed=("*",)),
    Kind("sdkman", 4, ("candidates",), suffix="/.sdkman", parts=("candidates",)),
    Kind(
        "homebrew",
        4,
        ("Cellar",),
        # etc and var, beside these, hold the configuration and data of services.
        parts=(
            "Cellar",
            "bin",
            "etc/ca-certificates",
            "etc/openssl@3",
            "include",
            "lib",
            "opt",
            "sbin",
            "share",
        ),
    ),
    Kind("rust", 1, ("bin/rustc", "lib/rustlib"), parts=("bin", "lib", "libexec")),
    # ~/.cargo holds credentials.toml. Where rustup keeps the compilers is looked up beside it.
    Kind("cargo", 1, ("bin/cargo",), parts=("bin",)),
    Kind("go", 1, ("bin/go", "pkg/tool"), strangers=PERSONAL_MARKS),
    Kind("jdk", 1, ("bin/java", "lib/modules"), strangers=PERSONAL_MARKS),
    # A prefix of npm's is often ~/.local, whose share holds keyrings, so parts.
    Kind("node", 1, ("lib/node_modules",), parts=("bin", "include/node", "lib/node_modules")),
    Kind("python", 1, ("bin/python3", "lib"), parts=("bin", "include", "lib", "lib64")),
)

NEVER_SHOWN: Final = frozenset(
    {
        "/",
        "/boot",
        "/dev",
        "/etc",
        "/home",
        "/media",
        "/mnt",
        "/nix",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/srv",
        "/sys",
        "/tmp",  # noqa: S108
        "/var",
        "/var/lib",
        "/var/tmp",  # noqa: S108
    }
)
"""Directories that are never shown as a toolchain, whatever lies in them. The caller's home, each
directory above it and each directory in /home belong to them too."""

NEVER_SHOWN_BENEATH: Final = ("/boot", "/dev", "/etc", "/proc", "/sys")
"""Trees of which nothing is ever shown as a toolchain."""

FOREIGN_TREES: Final = ("/media", "/mnt", "/run", "/snap", "/var")
"""Trees of which nothing is shown but toolchains of a known kind: other machines' drives, sockets
and state are found there."""

CREDENTIAL_FILES: Final = (
    ".condarc",
    ".bunfig.toml",
    ".env",
    ".git-credentials",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".yarnrc.yml",
    "auth.json",
    "credentials",
    "credentials.toml",
    "etc/npmrc",
    "pip.conf",
)
"""Files that hold tokens of package registries where they lie in a toolchain's root, or in that of
what a manager of versions installed. They appear empty inside."""
