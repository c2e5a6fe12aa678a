"""The command line: ``cat2``.

stdout is data (``--json`` is a contract: ``docs/reference/json.md``), stderr is talk and progress. What a
verb does is imported when it is used, so that ``cat2 --help`` is quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["FAMILIES", "VERBS", "Verb", "main"]


class Verb(NamedTuple):
    """A verb of the command line.

    Attributes
    ----------
    function : str
        ``module:function`` that does it.
    group : str
        Where ``--help`` lists it.
    help : str
        One line.
    """

    function: str
    group: str
    help: str


_READ, _CACHE, _SERVE, _SETUP = "Reading", "Cache", "Services", "Setting up"

VERBS: dict[str, Verb] = {
    "roots": Verb("caterva2.cli.listing:roots", _READ, "List the roots: who publishes what."),
    "list": Verb("caterva2.cli.listing:list_", _READ, "List the datasets of a root, or of all."),
    "tree": Verb("caterva2.cli.listing:tree", _READ, "Show directories and datasets as a tree."),
    "info": Verb("caterva2.cli.listing:info", _READ, "Show a dataset's metadata, or what is followed."),
    "show": Verb("caterva2.cli.showing:show", _READ, "Print a dataset, or a slice: 'foo/x.b2nd[0, 10:20]'."),
    "follow": Verb("caterva2.cli.following:follow", _READ, "Keep datasets current at the subscriber."),
    "unfollow": Verb("caterva2.cli.following:unfollow", _READ, "Stop following."),
    "download": Verb("caterva2.cli.downloading:download", _READ, "Save a file; resumes a broken download."),
    "url": Verb("caterva2.cli.listing:url", _READ, "Print the URL of a dataset's bytes."),
    "sources": Verb("caterva2.cli.sources:sources", _READ, "List who is asked for each root, and how."),
    "events": Verb("caterva2.cli.events:events", _READ, "Print changes as they are seen."),
    "cache ls": Verb("caterva2.cli.caching:ls", _CACHE, "List what is cached."),
    "cache pin": Verb("caterva2.cli.caching:pin", _CACHE, "Keep what is cached, whatever is needed."),
    "cache unpin": Verb("caterva2.cli.caching:unpin", _CACHE, "Pin no more."),
    "cache drop": Verb("caterva2.cli.caching:drop", _CACHE, "Drop what is cached of datasets."),
    "cache fsck": Verb("caterva2.cli.caching:fsck", _CACHE, "Check all that is cached, and repair it."),
    "serve": Verb("caterva2.cli.services:serve", _SERVE, "Broker, publisher and subscriber in one process."),
    "broker": Verb("caterva2.cli.services:broker", _SERVE, "Run the broker: who has what, what changed."),
    "publisher": Verb("caterva2.cli.services:publisher", _SERVE, "Publish directories as roots."),
    "subscriber": Verb("caterva2.cli.services:subscriber", _SERVE, "Serve every root, cached."),
    "bus check": Verb("caterva2.cli.bus:check", _SERVE, "Try out an existing NATS; print permissions."),
    "demo": Verb("caterva2.cli.demo:run", _SERVE, "Run the main job on this machine, with real data."),
    "doctor": Verb("caterva2.cli.doctor:doctor", _SETUP, "Find out what is wrong, and what to do about it."),
    "config": Verb(
        "caterva2.cli.configuration:config", _SETUP, "Show every setting, and where it comes from."
    ),
    "completion": Verb(
        "caterva2.cli.completion:completion", _SETUP, "Print what completes words in a shell."
    ),
}
"""All verbs, in the order in which they are listed; one of two words belongs to the family of the first."""

FAMILIES: dict[str, str] = {
    "cache": "Look after the cache: ls, pin, unpin, drop, fsck.",
    "bus": "Look after the bus: check.",
}
"""What ``--help`` says of verbs of two words."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        The exit code, as in `caterva2.cli.exit_codes`.
    """
    try:
        from caterva2.cli.app import run

        return run(argv)
    except KeyboardInterrupt:  # while modules are loaded
        return 130
