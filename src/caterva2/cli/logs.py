"""Logs of the services: for people on a terminal, JSON lines elsewhere; always on stderr."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

__all__ = ["configure_logs"]


def configure_logs(level: str) -> None:
    """Send all logs, those of libraries too, to stderr.

    Parameters
    ----------
    level : str
        ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    person = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if person else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # it says so of each connection to NATS that ends in TLS, since Python 3.11 does not know of the TLS
    logging.getLogger("asyncio").addFilter(lambda record: "eof_received()" not in record.getMessage())
    logging.getLogger("numexpr").setLevel(logging.WARNING)  # it says how many threads it could use
