"""Reads on one machine: one reader in interleaved rounds, then sixteen at once, then with bytes counted."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks.peers.contender import Contender, Expected, attempt, say
from benchmarks.peers.plan import Plan
from benchmarks.peers.processes import cpu_s, forget_peak, peak_bytes
from benchmarks.peers.reader import Reader
from benchmarks.peers.results import Cost, Samples

from caterva2.testing.network import Network

__all__ = ["count_bytes", "crowds", "rounds"]

BEGIN_IN_S = 0.3


def rounds(contenders: Sequence[Contender], plan: Plan) -> None:
    """Time single reads: in each round every system has a turn, all with the same keys."""
    for contender in contenders:
        forget_peak(contender.services.pids())
    for number in range(plan.rounds):
        say(f"round {number + 1} of {plan.rounds}")
        counts = dict(plan.turn) | ({"whole": 1} if number % plan.whole_every == 0 else {})
        for contender in shuffled(contenders, number):
            attempt(contender.result, "reads", turn, contender, counts, number)
    for contender in contenders:
        if not contender.result.not_run:
            contender.result.more["client_peak_mb"] = contender.reader.ask("memory") / 1e6


def turn(contender: Contender, counts: dict[str, int], number: int) -> None:
    """Read some of each kind; the first of a kind is not counted."""
    for kind, count in counts.items():
        seeds = [1000 * (number + 1) + read for read in range(count)]
        if kind != "whole":
            contender.reader.ask("read", kind=kind, seeds=[seeds[0] - 1])
        pids = contender.services.pids()
        before = cpu_s(pids)
        answer = contender.reader.ask("read", kind=kind, seeds=seeds)
        samples = contender.result.near.setdefault(kind, Samples())
        samples.seconds += answer["seconds"]
        samples.client_cpu_s += answer["cpu_s"]
        samples.server_cpu_s += cpu_s(pids) - before


def crowds(contenders: Sequence[Contender], plan: Plan, expected: Expected) -> None:
    """Have many read small cubes at once, one system after the other, some times."""
    with ExitStack() as stack:
        readers: dict[str, list[Reader]] = {}
        for contender in contenders:
            name = contender.result.system.name
            say(f"readers of {name}")
            readers[name] = []
            attempt(
                contender.result,
                "16 clients",
                gather,
                contender,
                plan,
                stack,
                readers[name],
            )
        for number in range(plan.crowd_rounds):
            say(f"16 clients, {number + 1} of {plan.crowd_rounds}")
            for contender in shuffled(contenders, number):
                mine = readers[contender.result.system.name]
                attempt(
                    contender.result,
                    "16 clients",
                    crowd,
                    contender,
                    mine,
                    plan,
                    number,
                    expected,
                )
    for contender in contenders:
        contender.result.more["server_peak_mb"] = peak_bytes(contender.services.pids()) / 1e6


def gather(contender: Contender, plan: Plan, stack: ExitStack, readers: list[Reader]) -> None:
    """Start the processes of a crowd and have each open the array, and warm what caches it has of its own."""
    system = contender.result.system
    for number in range(plan.crowd_processes):
        directory = contender.directory / f"crowd-{number}"
        readers.append(stack.enter_context(Reader(system, contender.case, contender.python, directory)))
    for reader in readers:
        reader.open(contender.address)
        if system.kind == "copy" and system.caches:
            reader.ask("read", kind="whole", seeds=[0])
        reader.ask("read", kind="ten", seeds=list(range(10)))


def crowd(contender: Contender, readers: list[Reader], plan: Plan, number: int, expected: Expected) -> None:
    """Have the processes read at once for a time."""
    pids = contender.services.pids()
    before = cpu_s(pids)
    begin_at = time.monotonic() + BEGIN_IN_S
    for place, reader in enumerate(readers):
        first = 100_000_000 * (place + 1) + 100_000 * number
        reader.tell(
            "crowd",
            kind="ten",
            first=first,
            threads=plan.crowd_threads,
            begin_at=begin_at,
            seconds=plan.crowd_s,
        )
    answers = [reader.answer() for reader in readers]
    found = contender.result.crowd
    found.server_cpu_s += cpu_s(pids) - before
    contender.result.crowd_s += max(answer["elapsed_s"] for answer in answers)
    for answer in answers:
        found.seconds += answer["seconds"]
        for seed, sample in answer["samples"]:
            expected.check(sample, "ten", seed)


def count_bytes(contenders: Sequence[Contender], plan: Plan) -> None:
    """Read through a link that counts, apart from all timing."""
    for contender in contenders:
        if contender.result.system.kind != "copy":
            say(f"bytes of {contender.result.system.name}")
            attempt(contender.result, "bytes", count, contender, plan)


def count(contender: Contender, plan: Plan) -> None:
    """Count what reads of one system move, headers included."""
    with Network() as network:
        link = network.link(contender.port)
        contender.reader.open(contender.result.system.address(link.port, contender.data))
        for kind, reads in plan.wire.items():
            if kind != "whole":
                contender.reader.ask("read", kind=kind, seeds=[0])
            cost = contender.result.wire.setdefault(kind, Cost())
            for seed in range(1, reads + 1):
                before = link.received_bytes + link.sent_bytes
                cost.seconds += contender.reader.ask("read", kind=kind, seeds=[seed])["seconds"]
                cost.wire_bytes.append(link.received_bytes + link.sent_bytes - before)


def shuffled(contenders: Sequence[Contender], seed: int) -> list[Contender]:
    """Return the same in another order, for each round another."""
    order = list(contenders)
    random.Random(seed).shuffle(order)
    return order
