"""A cluster of real nats-servers, each of which can be killed and started again; and leaf nodes of it.

They listen on loopback and are run as an administrator would run them: services get their URLs. Each has a
port for clients, one for the others of the cluster, one for leaf nodes, and one for monitoring, by which
tests wait and find leaders.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from caterva2.bus.server import find_binary
from caterva2.testing.waiting import wait_until

__all__ = ["DOMAIN", "NatsCluster", "NatsNode", "TlsFiles", "leaf_node", "nats_cluster"]

DOMAIN = "hub"
"""Names the store of the cluster for leaf nodes."""

LEAF_MAPPINGS = f"""mappings = {{
    "$JS.API.>": "$JS.{DOMAIN}.API.>"
    "$KV.>": "$JS.{DOMAIN}.API.$KV.>"
}}"""
"""Has a leaf node pass on what is for a store: it keeps what is not addressed to a domain to itself."""

READY_S = 40.0
"""How long a cluster may take to have leaders, in seconds."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What servers show, and who vouches for them (PEM)."""

    certificate: Path
    key: Path
    ca: Path

    def block(self, **more: bool) -> str:
        """Return the block of a configuration."""
        flags = "".join(f", {name}: {str(value).lower()}" for name, value in more.items())
        files = f"cert_file: {json.dumps(str(self.certificate))}, key_file: {json.dumps(str(self.key))}"
        return f"tls {{ {files}, ca_file: {json.dumps(str(self.ca))}{flags} }}"


class NatsNode:
    """A nats-server in a process of its own.

    Parameters
    ----------
    directory : Path
        For its configuration, store and log.
    name : str
    environment : mapping of str to str, optional
        Variables that its configuration refers to.

    Attributes
    ----------
    port, cluster_port, leaf_port, monitoring_port : int
        Kept over restarts.
    """

    def __init__(self, directory: Path, name: str, environment: Mapping[str, str] | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.directory = directory
        self.log = directory / "nats.log"
        self.port, self.cluster_port, self.leaf_port, self.monitoring_port = _free_ports(4)
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, text: str) -> None:
        """Write its configuration: where it listens, and a text."""
        lines = [
            f"server_name: {self.name}",
            f"listen: 127.0.0.1:{self.port}",
            f"http: 127.0.0.1:{self.monitoring_port}",
            f"log_file: {json.dumps(str(self.log))}",
            "max_control_line: 16384",
            text,
        ]
        (self.directory / "nats.conf").write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Start it; it is not ready yet."""
        command = [find_binary(), "-c", str(self.directory / "nats.conf")]
        null = subprocess.DEVNULL
        with (self.directory / "output").open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=null, stdout=null, stderr=output, env=self._environment
            )

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Kill -9, and wait for its end."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Stop it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()

    def is_ready(self) -> bool:
        """Return whether it says so."""
        return (self.ask("healthz") or {}).get("status") == "ok"

    def ask(self, target: str) -> Any:  # Any: JSON
        """Return what its monitoring says; None if it does not answer well."""
        with (
            suppress(OSError, ValueError),
            urlopen(f"http://127.0.0.1:{self.monitoring_port}/{target}") as answer,
        ):
            return json.load(answer)
        return None


class NatsCluster:
    """Three nats-servers, or as many as are given.

    Attributes
    ----------
    nodes : list of NatsNode
    urls : list of str
        For clients.
    """

    def __init__(self, nodes: list[NatsNode], scheme: str) -> None:
        self.nodes = nodes
        self.urls = [f"{scheme}://127.0.0.1:{node.port}" for node in nodes]

    def wait_ready(self) -> None:
        """Wait until each node that runs says that it is, and that it knows a leader.

        Raises
        ------
        TimeoutError
        """
        for node in self.nodes:
            if node.running:
                wait_until(node.is_ready, READY_S)
        if len(self.nodes) > 1:
            wait_until(self.leader, READY_S)

    def leader(self, stream: str | None = None) -> NatsNode | None:
        """Return who leads a stream, or by default who decides on all of them; None while nobody does."""
        running = {node.name: node for node in self.nodes if node.running}
        for node in running.values():
            state = node.ask("jsz?accounts=true&streams=true")
            if state is None:
                continue
            cluster = state.get("meta_cluster") if stream is None else _cluster_of(state, stream)
            if (leader := (cluster or {}).get("leader")) in running:
                return running[leader]
        return None

    def stop(self) -> None:
        """Stop all that run."""
        for node in self.nodes:
            node.stop()


def _cluster_of(state: Any, stream: str) -> Any:
    details = [detail for account in state["account_details"] for detail in account.get("stream_detail", ())]
    return next((detail["cluster"] for detail in details if detail["name"] == stream), None)


@contextmanager
def nats_cluster(
    directory: Path,
    *,
    size: int = 3,
    tls: TlsFiles | None = None,
    configuration: str = "",
    environment: Mapping[str, str] | None = None,
) -> Iterator[NatsCluster]:
    """Run a cluster.

    Parameters
    ----------
    directory : Path
    size : int
        Number of servers; one is no cluster.
    tls : TlsFiles, optional
        What all servers show to clients, to each other and to leaf nodes; without, nothing is encrypted.
    configuration : str
        What stands in the configuration of each beside: users, of leaf nodes as well.
    environment : mapping of str to str, optional
        Variables that the configuration refers to.
    """
    nodes = [NatsNode(directory / f"n{n}", f"n{n}", environment) for n in range(1, size + 1)]
    cluster = NatsCluster(nodes, "nats" if tls is None else "tls")
    routes = ", ".join(f"nats://127.0.0.1:{node.cluster_port}" for node in nodes)
    block = "" if tls is None else tls.block()
    try:
        for node in nodes:
            store = f"store_dir: {json.dumps(str(node.directory / 'store'))}, domain: {DOMAIN}"
            lines = [f"jetstream {{ {store}, max_memory_store: 64MB, max_file_store: 1GB }}", block]
            # those that a leaf node knows are all: it is told of no others
            leaves = f"listen: 127.0.0.1:{node.leaf_port}, no_advertise: true, {block}"
            lines.append(f"leafnodes {{ {leaves} }}")
            if size > 1:
                listen = f"listen: 127.0.0.1:{node.cluster_port}"
                lines.append(f"cluster {{ name: c2, {listen}, routes: [{routes}], {block} }}")
            node.configure("\n".join([*lines, configuration]))
            node.start()
        cluster.wait_ready()
        yield cluster
    finally:
        cluster.stop()


@contextmanager
def leaf_node(
    directory: Path,
    hub_urls: list[str],
    tls: TlsFiles,
    *,
    configuration: str = "",
    environment: Mapping[str, str] | None = None,
) -> Iterator[NatsNode]:
    """Run a leaf node without a store of its own: what it is asked for, it asks the cluster for.

    Parameters
    ----------
    directory : Path
    hub_urls : list of str
        Where the cluster listens for leaf nodes, with user and password.
    tls : TlsFiles
        Its ``ca`` vouches for the cluster. Clients of the leaf node need no TLS.
    configuration : str
        What stands in its configuration beside: users.
    environment : mapping of str to str, optional
        Variables that the configuration refers to.
    """
    node = NatsNode(directory, "leaf", environment)
    trust = f"tls {{ ca_file: {json.dumps(str(tls.ca))} }}"
    remote = f"{{ urls: {json.dumps(hub_urls)}, {trust} }}"
    lines = [f"leafnodes {{ remotes: [ {remote} ], reconnect: 1 }}", LEAF_MAPPINGS, configuration]
    node.configure("\n".join(lines))
    node.start()
    try:
        wait_until(lambda: (node.ask("leafz") or {}).get("leafnodes"), READY_S)
        yield node
    finally:
        node.stop()


def _free_ports(count: int) -> list[int]:
    """Return ports that are free, and not among those that the system gives to connections.

    A server that is started later, or again, must find its own free.
    """
    ports: set[int] = set()
    while len(ports) < count:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.add(port)
    return list(ports)
