"""``cat2 bus check``: whether an existing NATS can be used, and what its administrator has to permit."""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from caterva2 import config
from caterva2.cli.exit_codes import ExitCode
from caterva2.cli.logs import configure_logs
from caterva2.cli.options import BusOptions, Json
from caterva2.cli.output import print_json
from caterva2.errors import ConfigError

__all__ = ["check"]

NO_BUS = BusOptions()

_SETTINGS: dict[str, Any] = {  # Any: classes of settings
    "broker": config.BrokerSettings,
    "publisher": config.PublisherSettings,
    "subscriber": config.SubscriberSettings,
}


def check(
    *,
    role: Annotated[
        Literal["broker", "publisher", "subscriber"],
        Parameter(help="What is going to use it. A broker makes the buckets that are missing."),
    ] = "subscriber",
    root: Annotated[
        tuple[str, ...], Parameter(help="A root that a publisher announces; can be repeated. By default any.")
    ] = (),
    republish: Annotated[
        bool, Parameter(negative=(), help="A subscriber announces itself as a further source.")
    ] = False,
    domain: Annotated[
        str | None, Parameter(help="With --permissions: for a leaf node of a cluster with this domain.")
    ] = None,
    permissions: Annotated[
        bool, Parameter(negative=(), help="Print what the administrator has to permit, and try nothing.")
    ] = False,
    broker: Annotated[str | None, Parameter(help="Broker to ask where the bus is, without --bus.")] = None,
    token_file: Annotated[Path | None, Parameter(help="File that holds the token of the group.")] = None,
    bus: BusOptions = NO_BUS,
    json: Json = False,
    debug: Annotated[bool, Parameter(help="Show where an error came from.")] = False,
) -> int:
    """Try out a bus as a service would use it; or print what it has to permit."""
    if permissions:
        from caterva2.bus.permissions import permissions_of, server_block

        user = re.sub("[^A-Za-z0-9]+", "-", "-".join(["caterva2", role, *root]))
        permitted = permissions_of(role, root, republish=republish, domain=domain)
        block = server_block(user, permitted)
        print_json({"user": user, **asdict(permitted), "configuration": block}) if json else print(block)
        return ExitCode.OK
    configure_logs("debug" if debug else "critical")
    flags = {"broker": broker, "token_file": token_file, **bus.flags()}
    settings = config.load(_SETTINGS[role], **flags)
    if role == "broker" and not settings.bus:
        raise ConfigError(
            "a broker has a bus of its own unless it is given another: say which with --bus URL"
        )
    return asyncio.run(_check(settings, role, root, republish=republish, json=json))


async def _check(settings: Any, role: Any, roots: tuple[str, ...], *, republish: bool, json: bool) -> int:
    from caterva2.bus.check import check_bus
    from caterva2.bus.locate import existing_bus, locate

    address = existing_bus(settings) if settings.bus else await locate(settings)()
    found = []
    async for finding in check_bus(address, role, roots, republish=republish):
        found.append(finding)
        if not json:
            print(f"{'ok    ' if finding.ok else 'failed'}  {finding.check}: {finding.detail}", flush=True)
    if json:
        rows = [asdict(finding) for finding in found]
        names = ("check", "ok", "detail")
        print_json(
            {"ok": all(row["ok"] for row in rows), "checks": [{n: row[n] for n in names} for row in rows]}
        )
    if not any(finding.reached for finding in found):
        return ExitCode.UNAVAILABLE
    return ExitCode.OK if all(finding.ok for finding in found) else ExitCode.FAILED
