"""Services as processes of their own, for benchmarks: started one by one, so that each can be timed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import urllib3
from prometheus_client.parser import text_string_to_metric_families
from tests.conftest import Process, Site

from caterva2.testing.waiting import wait_until

READY_S = 600


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_of(pid: int) -> tuple[int, int]:
    """Return how many connections and how many other files a process has open."""
    targets = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir()]
    connections = sum(target.name.startswith("socket:") for target in targets)
    return connections, len(targets) - connections


def bus_of(broker: Process) -> int:
    pid = broker.popen.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


class Three:
    """A broker, and publishers and subscribers of the root ``foo``.

    Parameters
    ----------
    site : Site
    root : Path
        Its directory.
    """

    def __init__(self, site: Site, root: Path) -> None:
        self.site, self.root = site, root
        self._http = urllib3.PoolManager()
        self.broker = self._start("broker")
        site.environment["CATERVA2_BROKER"] = self.broker.url("broker")

    def _start(self, service: str, *arguments: str, state: str = "") -> Process:
        directory = str(self.site.directory / (state or service))
        return self.site.start(service, *arguments, "--listen", "127.0.0.1:0", "--state", directory)

    def publisher(self) -> Process:
        return self._start("publisher", "foo", str(self.root))

    def subscriber(self, state: str = "subscriber", *arguments: str) -> Process:
        return self._start("subscriber", *arguments, state=state)

    def metrics(self, service: str, process: Process) -> dict[str, float]:
        """Return the metrics of a service by name; of those with labels, the sum."""
        text = self._http.request("GET", f"{process.url(service)}/metrics").data.decode()
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                bound = f"[{sample.labels['le']}]" if "le" in sample.labels else ""
                name = sample.name.removeprefix(f"caterva2_{service}_") + bound
                found[name] = found.get(name, 0.0) + sample.value
        return found

    def wait_ready(self, subscriber: Process, datasets: int) -> None:
        """Wait until a subscriber knows so many datasets, confirmed."""

        def ready() -> bool:
            metrics = self.metrics("subscriber", subscriber)
            return (metrics.get("datasets"), metrics.get("fresh")) == (datasets, 1)

        wait_until(ready, READY_S)

    def ready_s(
        self, start: Callable[[], Process], datasets: int, subscriber: Process | None = None
    ) -> tuple[Process, float]:
        """Start a process; return it, and how long after a subscriber (by default it) was ready."""
        began = time.perf_counter()
        process = start()
        self.wait_ready(subscriber or process, datasets)
        return process, time.perf_counter() - began


def idle(pids: dict[str, int], seconds: float) -> dict[str, float]:
    """Return which share of a core each process takes while nothing happens."""
    time.sleep(5)
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    time.sleep(seconds)
    return {name: (cpu_s(pid) - before[name]) / seconds for name, pid in pids.items()}
