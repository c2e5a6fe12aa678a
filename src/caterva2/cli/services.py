"""``cat2 broker``, ``publisher``, ``subscriber``, ``serve``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from caterva2 import config
from caterva2.cli.logs import configure_logs
from caterva2.cli.options import BusOptions
from caterva2.cli.patterns import mode_of
from caterva2.cli.running import Make, run_services
from caterva2.errors import ConfigError
from caterva2.http.service import Service

__all__ = ["broker", "parse_roots", "publisher", "serve", "subscriber"]

MOST_PORT = 65533
"""Two more follow."""

Listen = Annotated[str | None, Parameter(help="HOST:PORT; port 0 chooses a free one.")]
State = Annotated[Path | None, Parameter(help="Directory of what must survive a restart.")]
Broker = Annotated[str | None, Parameter(help="URL of the broker (else CATERVA2_BROKER).")]
Url = Annotated[str | None, Parameter(help="Address announced to others: behind a proxy or NAT.")]
Reset = Annotated[
    bool, Parameter(negative=(), help="Have readers take all, even what is older than they saw.")
]
Republish = Annotated[
    tuple[str, ...] | None,
    Parameter(
        negative=(), consume_multiple=True, help="Be a further source for others: of ROOT,… or of all."
    ),
]
Roots = Annotated[str, Parameter(name="ROOTS", help="NAME=DIR …, or NAME DIR.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Common:
    """What all services take."""

    token_file: Annotated[
        Path | None, Parameter(help="File that holds the token of the group (else CATERVA2_TOKEN).")
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Parameter(help="Least level of what is logged.")
    ] = "info"
    json: Annotated[bool, Parameter(help="Say on stdout where it listens, as a line of JSON.")] = False
    debug: Annotated[bool, Parameter(help="Log everything, and show where an error came from.")] = False

    def configure_logs(self) -> None:
        """Set up logging."""
        configure_logs("debug" if self.debug else self.log_level)


DEFAULT = Common()
NO_BUS = BusOptions()


def broker(
    *,
    listen: Listen = None,
    state: State = None,
    bus: BusOptions = NO_BUS,
    common: Common = DEFAULT,
) -> None:
    """Run the broker: it knows who publishes what, and tells everybody what changed."""
    flags = {"listen": listen, "state": state, "token_file": common.token_file, **bus.flags()}
    _run([_broker(config.load(config.BrokerSettings, **flags))], common)


def publisher(
    *roots: Roots,
    broker: Broker = None,
    listen: Listen = None,
    url: Url = None,
    state: State = None,
    settle_s: Annotated[float | None, Parameter(help="A file is taken when it is quiet for so long.")] = None,
    max_settle_s: Annotated[
        float | None, Parameter(help="A file that is written all the time is taken after so long.")
    ] = None,
    rescan_s: Annotated[float | None, Parameter(help="Pause between full scans, in seconds.")] = None,
    reset: Reset = False,
    bus: BusOptions = NO_BUS,
    common: Common = DEFAULT,
) -> None:
    """Publish directories as roots. Nothing is ever written below them."""
    flags: dict[str, Any] = {"broker": broker, "listen": listen, "url": url, "state": state}
    flags |= {"token_file": common.token_file, "settle_s": settle_s}
    flags |= {"max_settle_s": max_settle_s, "rescan_s": rescan_s, **bus.flags()}
    settings = config.load(config.PublisherSettings, **flags)
    _run([_publisher(settings, parse_roots(roots), reset=reset)], common)


def subscriber(
    *,
    broker: Broker = None,
    listen: Listen = None,
    url: Url = None,
    state: State = None,
    quota: Annotated[str | None, Parameter(help="Most that the cache may take on disk: 10GB.")] = None,
    republish: Republish = None,
    follow: Annotated[
        tuple[str, ...], Parameter(help="Pattern to be followed, as by cat2 follow, also if it comes later.")
    ] = (),
    full: Annotated[bool, Parameter(negative="", help="Keep all of what --follow names: a mirror.")] = False,
    meta: Annotated[bool, Parameter(negative="", help="Keep its metadata only.")] = False,
    republish_to: Annotated[
        str | None, Parameter(help="URL of another group's broker, to announce the roots there.")
    ] = None,
    republish_url: Annotated[str | None, Parameter(help="Address announced there.")] = None,
    republish_token_file: Annotated[
        Path | None, Parameter(help="File that holds the token of that group, where it is another one.")
    ] = None,
    bus: BusOptions = NO_BUS,
    common: Common = DEFAULT,
) -> None:
    """Follow the broker, and serve every root from a cache that fills itself."""
    flags: dict[str, Any] = {"broker": broker, "listen": listen, "url": url, "state": state}
    flags |= {"quota_bytes": quota, "token_file": common.token_file}
    flags |= {"republish": None if republish is None else ",".join(republish) or "*"}
    flags |= {"follow": follow or None, "follow_mode": mode_of(full=full, meta=meta)}
    flags |= {"republish_to": republish_to, "republish_url": republish_url}
    flags |= {"republish_token_file": republish_token_file}
    flags |= bus.flags()
    settings = config.load(config.SubscriberSettings, **flags)
    if (full or meta) and not settings.follow:
        raise ConfigError("--full and --meta say how --follow does it: give a pattern, such as --follow foo")
    _run([_subscriber(settings)], common)


def serve(
    *roots: Roots,
    host: Annotated[str, Parameter(help="Host or address to listen on; beyond 127.0.0.1 with a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int,
        Parameter(
            help="Port of the broker; publisher and subscriber take the next two. 0: any.",
            validator=Number(gte=0, lte=MOST_PORT),
        ),
    ] = 8000,
    url: Url = None,
    state: Annotated[Path | None, Parameter(help="Directory for the state of all three.")] = None,
    quota: Annotated[str | None, Parameter(help="Most that the cache may take on disk: 10GB.")] = None,
    reset: Reset = False,
    common: Common = DEFAULT,
) -> None:
    """Run broker, publisher and subscriber in one process. Others join: cat2 subscriber --broker URL."""
    from caterva2.publisher.service import directory_of

    directories = {name: directory_of(name, path) for name, path in parse_roots(roots).items()}

    def settings(cls: Any, number: int, **flags: Any) -> Any:  # Any: one of three settings classes
        listen = config.Address(host, port + number if port else 0)
        own = None if state is None else state / cls.section
        return config.load(cls, listen=listen, state=own, token_file=common.token_file, **flags)

    def make_publisher(running: dict[str, Service]) -> tuple[Service, str]:
        at = running["broker"].address.url
        own = settings(config.PublisherSettings, 1, broker=at, url=url)
        return _publisher(own, directories, reset=reset)(running)

    def make_subscriber(running: dict[str, Service]) -> tuple[Service, str]:
        at = running["broker"].address.url
        return _subscriber(settings(config.SubscriberSettings, 2, broker=at, quota_bytes=quota))(running)

    _run([_broker(settings(config.BrokerSettings, 0)), make_publisher, make_subscriber], common)


def parse_roots(arguments: Sequence[str]) -> dict[str, Path]:
    """Parse ``NAME=DIR …`` or ``NAME DIR``.

    Raises
    ------
    ConfigError
        If there is none, one is malformed, or two have the same name.
    """
    if len(arguments) == 2 and "=" not in arguments[0]:
        return {arguments[0]: Path(arguments[1])}
    roots: dict[str, Path] = {}
    for argument in arguments:
        name, equals, directory = argument.partition("=")
        if not (name and equals and directory):
            raise ConfigError(f"{argument!r} names no root: write NAME=DIR, or for one root NAME DIR")
        if name in roots:
            raise ConfigError(f"root {name!r} is given twice")
        roots[name] = Path(directory)
    if not roots:
        raise ConfigError("nothing to publish: write NAME=DIR, or for one root NAME DIR")
    return roots


def _broker(settings: config.BrokerSettings) -> Make:
    def make(_: dict[str, Service]) -> tuple[Service, str]:
        from caterva2.broker.service import BrokerService

        return BrokerService(settings), "broker"

    return make


def _publisher(settings: config.PublisherSettings, roots: Mapping[str, Path], *, reset: bool = False) -> Make:
    def make(_: dict[str, Service]) -> tuple[Service, str]:
        from caterva2.publisher.service import PublisherService

        names = " ".join(f"{name}={directory}" for name, directory in roots.items())
        return PublisherService(settings, roots, reset=reset), f"publisher {names}"

    return make


def _subscriber(settings: config.SubscriberSettings) -> Make:
    def make(_: dict[str, Service]) -> tuple[Service, str]:
        from caterva2.subscriber.service import SubscriberService

        return SubscriberService(settings), "subscriber"

    return make


def _run(makes: Sequence[Make], common: Common) -> None:
    common.configure_logs()
    run_services(makes, json=common.json)
