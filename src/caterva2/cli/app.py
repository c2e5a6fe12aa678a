"""The parser of the command line, and how everything that goes wrong ends."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group, Parameter

from caterva2.cli import FAMILIES, VERBS
from caterva2.cli.exit_codes import ExitCode, exit_code, explain

__all__ = ["build_app", "run"]


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
    try:
        app = build_app()
        result = app(arguments or ["--help"])
        sys.stdout.flush()
        return result if isinstance(result, int) else ExitCode.OK
    except CycloptsError as error:
        return _usage(arguments, error)
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not complain when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        print(f"cat2: {explain(error)}", file=sys.stderr)
        return exit_code(error)


def _usage(arguments: Sequence[str], error: CycloptsError) -> int:
    words = (" ".join(arguments[:count]) for count in (2, 1))
    verb = next((f" {name}" for name in words if name in VERBS or name in FAMILIES), "")
    text = " ".join(str(error).split())
    print(f"cat2{verb}: {text}\nsee: cat2{verb} --help", file=sys.stderr)
    return ExitCode.USAGE
