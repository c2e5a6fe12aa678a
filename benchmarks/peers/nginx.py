"""An nginx for one directory, as one would set it up for arrays: ranges from the page cache, by sendfile."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from benchmarks.peers.services import NotRun, Services, free_port

__all__ = ["serve_directory"]

CONFIGURATION = """
daemon off;
worker_processes auto;
pid {home}/nginx.pid;
error_log {home}/error.log;
{user}
events {{ worker_connections 1024; }}
http {{
    default_type application/octet-stream;
    access_log off;
    sendfile on;
    tcp_nopush off;  # on, as Debian has it, range answers of some 70 kB wait for 44 ms
    tcp_nodelay on;
    keepalive_requests 1000000;
    open_file_cache max=10000 inactive=60s;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def serve_directory(services: Services, root: Path) -> int:
    """Start an nginx and return its port.

    Raises
    ------
    NotRun
        If there is none on this machine.
    """
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        raise NotRun("nginx is not installed")
    port = free_port()
    home = services.directory
    user = "user root;" if os.geteuid() == 0 else ""
    file = home / "nginx.conf"
    file.write_text(CONFIGURATION.format(home=home, root=root, port=port, user=user))
    log = home / "nginx-start.log"
    return services.start("nginx", [nginx, "-e", log, "-p", home, "-c", file]).wait_for_port(port)
