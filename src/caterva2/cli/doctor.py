"""``cat2 doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain
from textwrap import wrap

from caterva2 import config
from caterva2.cli.checks_here import check_here
from caterva2.cli.checks_there import check_there
from caterva2.cli.exit_codes import ExitCode
from caterva2.cli.findings import Finding, State, failed
from caterva2.cli.options import Connection, Json
from caterva2.cli.output import counted, is_terminal, print_json, styled, visible, width
from caterva2.errors import ConfigError

__all__ = ["doctor"]

DEFAULT = Connection()

_COLOURS: dict[State, str] = {"ok": "green", "warning": "yellow", "failed": "bold red"}


def doctor(*, json: Json = False, connection: Connection = DEFAULT) -> int:
    """Look at settings, this machine and the subscriber; say what to do. Exit code 1 if a check failed."""
    found: list[Finding] = []
    for finding in chain(check_here(), _there(connection)):
        found.append(finding)
        if not json:
            _print(finding)
    states = [finding.state for finding in found]
    sound = "failed" not in states
    if json:
        print_json({"ok": sound, "checks": [finding._asdict() for finding in found]})
    else:
        counts = f"{counted(states.count('warning'), 'warning')}, {states.count('failed')} failed"
        print(f"{counted(len(found), 'check')}: {counts}", file=sys.stderr)
    return ExitCode.OK if sound else ExitCode.FAILED


def _there(connection: Connection) -> Iterator[Finding]:
    try:
        settings = config.load(
            config.ClientSettings,
            subscriber=connection.subscriber,
            token_file=connection.token_file,
            timeout_s=connection.timeout_s,
        )
    except ConfigError as error:
        yield failed("subscriber", f"not looked for: {error}", "mend that first")
        return
    yield from check_there(settings)


def _print(finding: Finding) -> None:
    """Print a finding at once: the next one may take a while."""
    state = finding.state.ljust(len("warning"))
    lines = [f"{visible(finding.check)}: {visible(finding.detail)}"]
    if finding.hint:
        lines.append(visible(finding.hint))
    indent = " " * (len(state) + 2)
    if is_terminal():
        lines = [row for line in lines for row in wrap(line, max(20, width() - len(indent)))]
    print(f"{styled(state, _COLOURS[finding.state])}  {lines[0]}")
    for line in lines[1:]:
        print(f"{indent}{line}")
    sys.stdout.flush()
