"""For all tests: logs go where pytest captures them, unlike those of threads that write to stdout."""

from __future__ import annotations

import structlog

structlog.configure(
    logger_factory=structlog.stdlib.LoggerFactory(),
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.KeyValueRenderer(key_order=["event"]),
    ],
)
