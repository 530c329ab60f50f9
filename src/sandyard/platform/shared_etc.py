"""The entries of /etc that commands share with the host, and why each is needed.

/etc is an allowlist: what is not named here is not there inside. Each entry costs every session's
start one mount (about 0.04 ms), so what programs do without is left out too. Nothing here tells who
the host's users are or what they may do, and no key lies in it (``ssl/private``, ``shadow``,
``sudoers``, ``gitconfig``, ``npmrc`` and ``pip.conf``, which hold tokens, are left out on purpose).
"""

from __future__ import annotations

from typing import Final

__all__ = ["NETWORK_ETC", "SHARED_ETC"]

SHARED_ETC: Final[tuple[tuple[str, str], ...]] = (
    # A name that ends in "*" is a prefix. A file is named rather than its directory wherever the
    # directory also holds keys or passwords.
    ("ld.so.cache", "where shared libraries are: without it nothing outside /lib links"),
    ("ld.so.conf", "source of ld.so.cache, read by ldconfig -p and build tools"),
    ("ld.so.conf.d", "as ld.so.conf"),
    ("ld-musl-*", "library path of musl's dynamic linker"),
    ("ssl/certs", "certificate authorities (Debian, Arch, SUSE)"),
    ("ssl/cert.pem", "certificate authorities (Alpine, BSD-like layouts)"),
    ("ssl/ca-bundle.pem", "certificate authorities (SUSE)"),
    ("ssl/openssl.cnf", "OpenSSL's defaults"),
    ("ca-certificates/extracted", "certificate authorities: where ssl/certs points to (Arch)"),
    ("pki/ca-trust", "certificate authorities (Fedora)"),
    ("pki/java", "Java's certificate store (Fedora)"),
    ("pki/tls/cert.pem", "certificate authorities (Fedora)"),
    ("pki/tls/certs", "certificate authorities (Fedora)"),
    ("pki/tls/openssl.cnf", "OpenSSL's defaults (Fedora)"),
    ("crypto-policies", "included by OpenSSL's defaults (Fedora)"),
    ("alternatives", "symlinks in the middle of /usr/bin (Debian, Fedora)"),
    ("localtime", "the local time zone"),
    ("timezone", "its name (Debian)"),
    ("locale.conf", "the system's locale"),
    ("terminfo", "terminals described by the administrator"),
    ("inputrc", "readline's keys"),
    ("fonts", "fontconfig's rules; rendering fails without them"),
    ("java*", "the JVM's own configuration: it does not start without it (Debian)"),
    ("maven/m2.conf", "class path of mvn (Debian)"),
    ("maven/logging", "as m2.conf; settings.xml, beside it, holds passwords of servers"),
    ("python*", "defaults of the system's interpreters (Debian)"),
    ("R/ldpaths", "R does not start without it (Debian)"),
    ("R/Makeconf", "how R compiles packages"),
    ("R/Renviron", "R's defaults; Renviron.site, beside it, may hold tokens"),
    ("R/repositories", "where R's packages are"),
    ("ImageMagick-6", "which formats are refused"),
    ("ImageMagick-7", "which formats are refused"),
    ("mime.types", "types of files"),
    ("protocols", "names of protocols, for getprotobyname(3)"),
    ("services", "names of ports, for getservbyname(3)"),
    ("xml", "catalogs of document types: without them parsers go to the network"),
    ("texmf", "defaults of TeX"),
    ("os-release", "which system this is"),
    ("lsb-release", "which system this is"),
    ("redhat-release", "which system this is"),
    ("fedora-release", "which system this is"),
    ("system-release", "which system this is"),
    ("alpine-release", "which system this is"),
    ("arch-release", "which system this is"),
    ("SuSE-release", "which system this is"),
)
"""``(name, why)`` of what is always shared, relative to /etc."""

NETWORK_ETC: Final[tuple[tuple[str, str], ...]] = (
    ("resolv.conf", "the host's name servers"),
    ("hosts", "names that the host gives to addresses"),
    ("nsswitch.conf", "in which order names are looked up"),
    ("host.conf", "the resolver's defaults"),
    ("gai.conf", "order of addresses"),
)
"""``(name, why)`` of what is shared together with the host's network."""
