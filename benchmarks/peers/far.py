"""The same reads through a slow link: between a peer and its client, or our publisher and subscriber.

Who has a cache beside the reader starts anew for each read, and then reads the same once more.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.peers.contender import Contender, attempt, say
from benchmarks.peers.plan import WAN, Plan
from benchmarks.peers.reader import Reader
from benchmarks.peers.results import Cost
from benchmarks.peers.services import Services

from caterva2.testing.network import Link, Network

__all__ = ["far_reads"]


def far_reads(contenders: Sequence[Contender], plan: Plan) -> None:
    """Time single reads over the link, one system after the other: the link is slower than they are."""
    for contender in contenders:
        system = contender.result.system
        if system.name == "local":
            continue
        say(f"slow link: {system.name}")
        attempt(contender.result, "slow link", one_system, contender, plan)


def one_system(contender: Contender, plan: Plan) -> None:
    """Serve anew behind the link, and read."""
    system = contender.result.system
    directory = contender.directory / "far"
    with (
        Network() as network,
        Services(directory / "services", contender.python) as services,
        Reader(system, contender.case, contender.python, directory / "reader") as reader,
    ):
        link = system.serve_far(services, contender.data, network, WAN)
        for number, (kind, reads) in enumerate(plan.far.items()):
            for read in range(reads):
                if system.caches or not number + read:
                    reader.open(system.visit(services, contender.data, link))
                if not system.caches and not read:
                    reader.ask("read", kind="element", seeds=[0])  # connections are open, as before
                seed = 10 * (read + 1)
                timed(reader, link, kind, seed, contender.result.far)
                if system.caches:
                    timed(reader, link, kind, seed, contender.result.again)


def timed(reader: Reader, link: Link, kind: str, seed: int, costs: dict[str, Cost]) -> None:
    """Read once, and count."""
    cost = costs.setdefault(kind, Cost())
    before = link.received_bytes + link.sent_bytes
    cost.seconds += reader.ask("read", kind=kind, seeds=[seed])["seconds"]
    cost.wire_bytes.append(link.received_bytes + link.sent_bytes - before)
