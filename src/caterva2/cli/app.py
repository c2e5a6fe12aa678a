"""The parser of the command line, and how everything that goes wrong ends."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from io import TextIOWrapper

from cyclopts import App, CycloptsError, Group, Parameter

from caterva2.cli import FAMILIES, VERBS
from caterva2.cli.exit_codes import ExitCode, Explained, explain
from caterva2.cli.output import visible

__all__ = ["COMPLETE", "build_app", "run"]

COMPLETE = "__complete"
"""What a shell calls to complete words, with those of the line up to the cursor."""


def build_app() -> App:
    """Return the parser. No verb is imported for it."""
    app = App(
        name="cat2",
        help="Share compressed n-dimensional arrays among hosts by publish-subscribe.",
        version=_version,
        help_format="plaintext",  # the others load a Markdown renderer, for a third of the time of --help
        default_parameter=Parameter(negative=()),
        result_action="return_value",
        print_error=False,
        exit_on_error=False,
    )
    names = dict.fromkeys(verb.group for verb in VERBS.values())
    groups = {name: Group(name, sort_key=n) for n, name in enumerate(names)}
    families: dict[str, App] = {}
    for n, (name, verb) in enumerate(VERBS.items()):
        family, _, word = name.rpartition(" ")
        if not family:
            app.command(verb.function, name=word, help=verb.help, group=groups[verb.group], sort_key=n)
            continue
        if family not in families:
            families[family] = App(
                name=family, help=FAMILIES[family], group=groups[verb.group], sort_key=n, version_flags=()
            )
            app.command(families[family])
        families[family].command(verb.function, name=word, help=verb.help, sort_key=n)
    return app


def _version() -> str:
    from importlib.metadata import version

    return version("caterva2")


def run(argv: Sequence[str] | None = None) -> int:
    """Run a command; see `caterva2.cli.main`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names and texts that a terminal cannot show
    if arguments[:1] == [COMPLETE]:
        from caterva2.cli.candidates import print_candidates

        return print_candidates(arguments[1:])
    try:
        app = build_app()
        result = app(_words(arguments))
        sys.stdout.flush()
        return result if isinstance(result, int) else ExitCode.OK
    except CycloptsError as error:
        return _say(arguments, _usage(arguments, error))
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not complain when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        return _say(arguments, explain(error))


def _words(arguments: list[str]) -> list[str]:
    """Return what is meant: ``cat2`` and ``cat2 help VERB`` ask for help."""
    if not arguments:
        return ["--help"]
    if arguments[0] == "help":
        return [*arguments[1:], "--help"]
    return arguments


def _say(arguments: Sequence[str], found: Explained) -> int:
    """Say what went wrong on stderr, for a script as JSON; return the exit code."""
    if "--json" in arguments:
        print(json.dumps(asdict(found), ensure_ascii=False), file=sys.stderr)
        return found.exit_code
    text = f"cat2: {found.detail}\n{found.hint}" if found.hint else f"cat2: {found.detail}"
    print("\n".join(map(visible, text.splitlines())), file=sys.stderr)
    return found.exit_code


def _usage(arguments: Sequence[str], error: CycloptsError) -> Explained:
    words = (" ".join(arguments[:count]) for count in (2, 1))
    verb = next((f" {name}" for name in words if name in VERBS or name in FAMILIES), "")
    text = " ".join(str(error).split())
    return Explained(
        "usage", f"{verb.strip()}: {text}" if verb else text, f"see: cat2{verb} --help", ExitCode.USAGE
    )
