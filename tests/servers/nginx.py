"""A private nginx before a site: with TLS and HTTP/2, and as a caching proxy."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.certificates import Certificate
from tests.servers import Server, free_port

#: What must be writable is in the server's own folder, and named without it: it runs there.
CONFIGURATION = """
daemon off;
worker_processes 1;
user root;
pid pid;
error_log stderr;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    proxy_cache_path cache keys_zone=pages:1m;
    proxy_cache_key $scheme$http_host$request_uri;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-Proto $scheme;
    ssl_certificate certificate.pem;
    ssl_certificate_key key.pem;
    server {
        listen 127.0.0.1:%(tls)d ssl http2;
        location / { proxy_pass http://127.0.0.1:%(site)d; }
    }
    server {
        listen 127.0.0.1:%(caching)d;
        location / {
            proxy_pass http://127.0.0.1:%(site)d;
            proxy_cache pages;
            # Also what has no Cache-Control.
            proxy_cache_valid 200 10m;
            add_header X-Cache-Status $upstream_cache_status;
        }
    }
    server {
        listen 127.0.0.1:%(careless)d;
        location / {
            proxy_pass http://127.0.0.1:%(site)d;
            proxy_cache pages;
            proxy_cache_valid 200 10m;
            # As caches may: Set-Cookie alone forbids none of them to store a page (RFC 9111, 7.3).
            proxy_ignore_headers Set-Cookie;
            add_header X-Cache-Status $upstream_cache_status;
        }
    }
}
"""


class Nginx(Server):
    """One nginx on three ports: ``tls``; ``caching``, a proxy that caches; and ``careless``, one that caches cookies.

    Args:
        folder: as :class:`Server`'s.
        site: the port of the site that it is before.
        certificate: what it proves itself with.
    """

    program = "nginx"

    def __init__(self, folder: Path, site: int, certificate: Certificate) -> None:
        super().__init__(folder)
        self._site, self._certificate = site, certificate
        self.tls, self.caching, self.careless = free_port(), free_port(), free_port()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.tls}"

    def prepare(self) -> None:
        self._certificate.write(self.folder)
        ports = {"tls": self.tls, "caching": self.caching, "careless": self.careless, "site": self._site}
        (self.folder / "nginx.conf").write_text(CONFIGURATION % ports, encoding="ascii")

    def command(self) -> list[str]:
        return [self.path, "-p", str(self.folder), "-c", "nginx.conf", "-e", "stderr"]

    def connect(self) -> None:
        socket.create_connection(("127.0.0.1", self.tls), timeout=2).close()
