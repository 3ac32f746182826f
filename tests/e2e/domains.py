"""Both domains as an operator deploys them: nginx with the shipped file, two services behind it, one store.

The shipped configurations and nginx.conf are used as they are; only addresses, folders and certificates are
those of the test. `chat.example.com` and `chat2.example.com` are names in TLS and Host; nothing is resolved.
"""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from e2e.deployment import Customer, Deployment
from farebox.run.demo.processes import free_port, wait_until
from needs import REPOSITORY

CHAT, CHAT2 = "chat.example.com", "chat2.example.com"
MODEL = "gpt-5.1"
USD = 10**12


class Domains(Deployment):
    """`serve` with both configurations, two workers, behind nginx. `tls_port`, `http_port`: nginx's."""

    def __init__(self, folder: Path, nginx: str) -> None:
        self.nginx = nginx
        self.tls_port, self.http_port = free_port(), free_port()
        self.second_config = folder / "config2.json"
        super().__init__(folder)
        self._start_nginx()

    def write_config(self) -> None:
        """The production files, with this test's addresses."""
        sockets = self.folder / "sockets"
        sockets.mkdir()
        console_port = free_port()
        self.config = self.folder / "config.json"
        os.environ["OPENHANDS_API_KEY"] = os.environ["FAREBOX_DEMO_UPSTREAM_KEY"]
        ports = []
        for name, target in (("openhands", self.config), ("ohmygpt", self.second_config)):
            document = json.loads((REPOSITORY / "configs" / f"config-{name}-prod.json").read_text())
            for endpoint in document["endpoints"]:
                endpoint["base_url"] = f"http://127.0.0.1:{self.upstream_port}"
            ports.append(free_port())
            document["port"] = ports[-1]
            document["worker_sockets"] = str(sockets)
            document["data_dir"] = str(self.folder)
            document["store"] = {}
            document["console"]["port"] = console_port
            document["limits"] = {"requests_per_minute": 10_000_000}
            target.write_text(json.dumps(document))
        self.port, self.second_port = ports

    def amend(self, document: dict[str, Any]) -> None:
        """Nothing to change: `write_config` wrote what is served."""

    def start_farebox(self) -> None:
        command = [
            "farebox.run.cli",
            "serve",
            "--config",
            str(self.config),
            "--config",
            str(self.second_config),
        ]
        child = self._start("farebox", command)
        self._wait(child, "farebox", self.port, "/readyz")
        assert wait_until(lambda: "workers serve" in (self.folder / "farebox.log").read_text(), 20.0)

    def __exit__(self, *error: object) -> None:
        pid = self.folder / "nginx.pid"
        if pid.exists():
            os.kill(int(pid.read_text()), signal.SIGQUIT)
            wait_until(lambda: not pid.exists(), 10.0)
        super().__exit__(*error)  # type: ignore[arg-type]

    # -- nginx -----------------------------------------------------------------------------------------------
    @property
    def nginx_config(self) -> Path:
        """The file as the test runs it."""
        return self.folder / "nginx.conf"

    def write_nginx(self) -> None:
        """Write the file nginx is started with."""
        write_nginx_config(self.nginx_config, self.folder, self.tls_port, self.http_port)

    def _start_nginx(self) -> None:
        self.write_nginx()
        for name in ("chat", "chat2"):
            make_certificate(self.folder, name)
        subprocess.run([self.nginx, "-c", str(self.nginx_config)], check=True, capture_output=True)
        assert wait_until(lambda: _listens(self.tls_port), 10.0)

    def ask(
        self, domain: str, method: str, path: str, body: Any = None, key: str = "", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request through nginx: status, headers by lower-case name, body."""
        with self.open(domain) as connection:
            payload = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.sendall(request_head(domain, method, path, len(payload), key, **headers) + payload)
            response = HTTPResponse(connection, method=method)
            response.begin()
            found = {name.lower(): value for name, value in response.getheaders()}
            return response.status, found, response.read()

    def open(self, domain: str) -> ssl.SSLSocket:
        """A TLS connection whose certificate is verified for the domain."""
        name = domain.partition(".")[0]
        context = ssl.create_default_context(cafile=str(self.folder / f"{name}.crt"))
        raw = socket.create_connection(("127.0.0.1", self.tls_port), timeout=60)
        return context.wrap_socket(raw, server_hostname=domain)


def rich(domains: Domains, user: str) -> Customer:
    """A customer with money in every pool of both wallets; little in `credits`."""
    customer = domains.customer(user, USD, "creditsNew")
    domains.top_up(user, USD // 1000, "credits", f"credits-{user}")
    domains.top_up(user, USD, "refCredits", f"ref-{user}")
    return customer


def smoke(domains: Domains, customer: Customer, domain: str, *options: str) -> dict[str, Any]:
    """What `farebox smoke` says of one domain, and its exit status as `exit`."""
    name = domain.partition(".")[0]
    command = [sys.executable, "-m", "farebox.run.cli", "smoke", "--base-url", f"https://{domain}"]
    command += [
        "--connect-to",
        f"127.0.0.1:{domains.tls_port}",
        "--ca-file",
        str(domains.folder / f"{name}.crt"),
    ]
    command += ["--model", MODEL, "--config", str(domains.config), "--json", *options]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "FAREBOX_SMOKE_KEY": customer.key},
        check=False,
    )
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"error": done.stderr}
    return {**found, "exit": done.returncode}


def request_head(domain: str, method: str, path: str, length: int, key: str, **headers: str) -> bytes:
    lines = {"host": domain, "content-type": "application/json", "connection": "close"}
    if key:
        lines["authorization"] = f"Bearer {key}"
    if method == "POST":
        lines["content-length"] = str(length)
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode()


def write_nginx_config(target: Path, folder: Path, tls_port: int, http_port: int) -> None:
    """The shipped file with other addresses and folders, and without the rate limits' low ceiling."""
    text = (REPOSITORY / "nginx" / "nginx.conf").read_text(encoding="utf-8")
    for old, new in (
        (r"/etc/farebox/tls", str(folder)),
        (r"/run/farebox", str(folder / "sockets")),
        (r"/run/nginx\.pid", str(folder / "nginx.pid")),
        (r"/var/log/nginx", str(folder)),
        (r"listen 443", f"listen 127.0.0.1:{tls_port}"),
        (r"listen 80", f"listen 127.0.0.1:{http_port}"),
        (r"rate=\d+r/s", "rate=10000r/s"),
    ):
        text, count = re.subn(old, new, text)
        assert count, f"nginx.conf does not hold {old} any more"
    temporary = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("http {\n", "http {\n" + temporary, 1)
    # Only its owner may enter the test's folder; nginx started by root would change its user.
    target.write_text(("user root;\n" if os.geteuid() == 0 else "") + text, encoding="utf-8")


def make_certificate(folder: Path, name: str) -> None:
    """A self-signed certificate for NAME.example.com."""
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt"), "-days", "2"]
    command += ["-subj", f"/CN={name}.example.com", "-addext", f"subjectAltName=DNS:{name}.example.com"]
    subprocess.run(command, check=True, capture_output=True)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        time.sleep(0)
        return False
    return True
