"""The server of a site, as its file has it: how many processes there are, and whether the site is behind https."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from beaker_bridge.site.find import Site

#: The sections of servers.
_SERVERS = ("server:", "uwsgi", "gunicorn")
#: Options for the number of processes: gunicorn's, and uWSGI's.
_PROCESSES = ("workers", "processes", "p", "worker_processes")
#: Options whose value says https.
_SCHEMES = ("url_scheme", "scheme")
#: Options that are there where the server itself, or a proxy in front of it, speaks https.
_HTTPS = ("certfile", "keyfile", "ssl_pem", "secure_scheme_headers", "https", "https-socket", "https2")
#: Options that name the headers, or the proxies, from which a server takes the scheme.
_TRUSTED = ("trusted_proxy_headers", "forwarded_allow_ips")
#: PasteDeploy's middleware for what is behind a proxy.
_PREFIX = "paste.deploy.config:make_prefix_middleware"
_HTTPS_PORT = "443"


def processes_hint(site: Site) -> str:
    """Return the option by which the site has several processes, as text; empty if none says so."""
    for section, options in _servers(site):
        for name in _PROCESSES:
            value = str(options.get(name, "")).strip()
            if value.isdigit() and int(value) > 1:
                return f"[{section}] {name} = {value}"
    return ""


def https_hint(site: Site) -> str:
    """Return the option by which the site is behind https, as text; empty if none says so."""
    layers = [(layer.section, layer.options) for layer in site.layers if layer.made_by == _PREFIX]
    for section, options in (*_servers(site), *layers):
        for name, value in options.items():
            if _says_https(name, str(value).strip().lower()):
                return f"[{section}] {name}"
    return ""


def _says_https(name: str, value: str) -> bool:
    if name in _SCHEMES:
        return value == "https"
    if name == "force_port":
        return value == _HTTPS_PORT
    if name == "trusted_proxy_headers":
        return "proto" in value or "forwarded" in value.split()
    return bool(value) and name in {*_HTTPS, *_TRUSTED}


def _servers(site: Site) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in site.section_names():
        if name.startswith(_SERVERS):
            yield name, site.section(name)
