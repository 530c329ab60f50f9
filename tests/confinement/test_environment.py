"""The environment of commands, as whole values."""

from __future__ import annotations

import pytest

from sandyard.confinement import command_environment
from sandyard.policy import INHERITED_VARIABLES, Policy
from tests.confinement.hosts import ARM_BARE, DEBIAN_ROOT, OLD_USER

OWN = {
    "HOME": "/home/agent",
    "TMPDIR": "/tmp",
    "USER": "agent",
    "LOGNAME": "agent",
    "SHELL": "/bin/bash",
}
TOOLS = {
    "PATH": "/root/.pyenv/shims:/root/.cargo/bin:/usr/bin:/bin",
    "PYENV_ROOT": "/root/.pyenv",
    "RUSTUP_HOME": "/root/.rustup",
}


def of(environ: dict[str, str], policy: Policy | None = None, **manifest: str) -> dict[str, str]:
    pairs = command_environment(policy or Policy(), DEBIAN_ROOT, environ, manifest, "/srv/work")
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def test_nothing_is_inherited_unasked() -> None:
    host = {
        "AWS_SECRET_ACCESS_KEY": "k",
        "OPENAI_API_KEY": "k",
        "SSH_AUTH_SOCK": "/run/s",
        "HTTPS_PROXY": "http://u:p@h",
        "LD_PRELOAD": "/x.so",
        "PYTHONPATH": "/x",
        "HOME": "/root",
        "TMPDIR": "/scratch",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/zsh",
        "PATH": "/root/bin:/usr/bin",
        "XDG_RUNTIME_DIR": "/run/user/0",
        "VIRTUAL_ENV": "/v",
    }
    assert of(host) == OWN | TOOLS


def test_allowed_names_are_inherited() -> None:
    host = {name: f"value-{name}" for name in INHERITED_VARIABLES if name != "PATH"}
    assert of(host | {"PATH": "/x"}) == host | OWN | TOOLS


def test_paths_are_inherited_only_where_they_lead_somewhere() -> None:
    host = {
        "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
        "REQUESTS_CA_BUNDLE": "/root/corporate.pem",
        "NODE_EXTRA_CA_CERTS": "/usr/share/ca.pem",
        "SSL_CERT_DIR": "/etc/ssl/certs:/root/certs",
        "UV_PYTHON": "3.12",
        "TZ": ":/etc/localtime",
    }
    kept = {
        name: host[name] for name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "UV_PYTHON", "TZ")
    }
    assert of(host) == kept | OWN | TOOLS
    assert of(host, Policy(reads=("/root/corporate.pem", "/root/certs"))) == host | OWN | TOOLS


def test_names_beside_a_shown_tree_are_not_in_it() -> None:
    assert "SSL_CERT_FILE" not in of({"SSL_CERT_FILE": "/usrlocal/x"})


def test_later_words_win() -> None:
    host = {"LANG": "host", "EDITOR": "host", "SECRET": "host"}
    policy = Policy(environment=(("LANG", "policy"), ("A", "policy")), inherit=("EDITOR", "GONE"))
    assert of(host, policy, A="manifest", HOME="/w", PATH="/w/bin") == OWN | TOOLS | {
        "LANG": "policy",
        "EDITOR": "host",
        "A": "manifest",
        "HOME": "/w",
        "PATH": "/w/bin",
    }


def test_policy_may_set_the_sandboxs_own() -> None:
    assert of({}, Policy(environment=(("HOME", "/w"),)))["HOME"] == "/w"


def test_path_without_toolchains() -> None:
    variables = of({}, Policy(toolchains=False))
    assert variables == OWN | {"PATH": "/usr/bin:/bin"}


def test_workspace_can_be_home() -> None:
    policy = Policy(home="workspace")
    assert of({"HOME": "/root"}, policy) == of({}) | {"HOME": "/srv/work"}
    assert of({}, policy, HOME="/else")["HOME"] == "/else"


@pytest.mark.parametrize(
    ("facts", "shell", "path"),
    [
        (OLD_USER, "/bin/sh", "/usr/bin:/bin"),
        (ARM_BARE, "/bin/bash", "/home/agent/.venv/bin:/usr/bin:/bin"),
    ],
)
def test_other_hosts(facts: object, shell: str, path: str) -> None:
    pairs = command_environment(Policy(), facts, {}, {}, "/srv/work")  # type: ignore[arg-type]
    assert dict(pairs) == OWN | {"SHELL": shell, "PATH": path}
