"""What may stand at the cursor: the part of completion that all shells share.

A shell calls ``cat2 __complete WORD…`` with the words of the line up to the cursor, the last of which is to
be completed (it may be empty). It is answered a line for each candidate: what replaces the word, and behind a
tab what that is. The exit code is 1 where the name of a file belongs there, which shells know better. Nothing
is ever said of what goes wrong, and it ends within two seconds. bash cuts lines in a way of its own: it
calls ``cat2 __complete --line LINE``, and is answered what replaces the part that it has cut.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

from cyclopts import App

from caterva2.cli import FAMILIES, VERBS

__all__ = ["Candidate", "candidates", "print_candidates"]

SILENCE_S = 1.0
"""How long the subscriber may be silent, in seconds."""

PATIENCE_S = 2.0
"""How long all of it may take, in seconds."""

WHERE_FILES = 1
"""Exit code where a file belongs."""

_TAKES: dict[str, Literal["dataset", "root", "file"]] = {
    "list": "dataset",
    "tree": "dataset",
    "info": "dataset",
    "show": "dataset",
    "follow": "dataset",
    "unfollow": "dataset",
    "download": "dataset",
    "url": "dataset",
    "sources": "root",
    "events": "dataset",
    "cache ls": "dataset",
    "cache pin": "dataset",
    "cache unpin": "dataset",
    "cache drop": "dataset",
    "cache fsck": "dataset",
    "publisher": "file",
    "serve": "file",
}
"""What verbs take that is no option."""

_ONE = frozenset(
    {"list", "tree", "info", "show", "url", "sources", "events", "cache ls", "cache fsck", "download"}
)
"""Verbs of which only the first is of that kind; what follows the dataset of a download is a directory."""

_FILES = ("file", "ca", "credentials", "certificate", "key", "state")
"""How names of options end that take files."""


class Candidate(NamedTuple):
    """What may stand at the cursor.

    Attributes
    ----------
    value : str
    help : str
        One line; may be empty.
    """

    value: str
    help: str = ""


class _Option(NamedTuple):
    names: tuple[str, ...]
    help: str
    choices: tuple[str, ...]
    is_flag: bool


class _FileWanted(Exception):
    """The name of a file belongs at the cursor."""


def print_candidates(words: Sequence[str], patience_s: float = PATIENCE_S) -> int:
    """Print what may stand in place of the last of some words; return the exit code.

    Parameters
    ----------
    words : sequence of str
        Those behind ``cat2``; or ``--line`` and a line.
    patience_s : float
        How long it may take, in seconds; then nothing is printed.
    """
    cut = 0
    match list(words):
        case ["--line", line]:
            words, cut = _split(line)
        case ["--", *rest]:
            words = rest
    found: list[Candidate] = []
    code = 0

    def find() -> None:
        nonlocal code
        try:
            found.extend(candidates(words))
        except _FileWanted:
            code = WHERE_FILES
        except Exception:  # whatever it is, a line that is being written is not the place to say it
            found.clear()

    finder = threading.Thread(target=find, daemon=True)  # a name server may be silent for longer
    finder.start()
    finder.join(patience_s)
    with suppress(OSError):
        print("".join(f"{value[cut:]}\t{text}\n" for value, text in found), end="", flush=True)
    return code


def _split(line: str) -> tuple[list[str], int]:
    """Return the words of a line of bash behind the command, and how much of the last one it has cut off."""
    words, quote, quoted, escaped = [""], "", False, False
    for char in line:
        if escaped:
            words[-1] += char
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif quote or char in "'\"":
            quoted = True
            words[-1] += char if quote not in ("", char) else ""
            quote = "" if quote == char else quote or char
        elif char.isspace():
            words += [""] if words[-1] or quoted else []
            quoted = False
        else:
            words[-1] += char
    return words[1:], 0 if quoted else max(words[-1].rfind(char) for char in ":=") + 1


def candidates(words: Sequence[str]) -> list[Candidate]:
    """Return what may stand in place of the last of some words; those behind ``cat2``.

    Raises
    ------
    _FileWanted
        If it is the name of a file.
    """
    *before, current = words or [""]
    verb, rest = _verb(before)
    if verb is None:
        return [found for found in _verbs(before) if found.value.startswith(current)]
    return [found for found in _of_verb(verb, rest, current) if found.value.startswith(current)]


def _verb(before: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the verb of a line, and what stands behind it."""
    before = [word for word in before if word != "help"] if before[:1] == ["help"] else before
    for count in (2, 1):
        name = " ".join(before[:count])
        if len(before) >= count and name in VERBS:
            return name, list(before[count:])
    return None, []


def _verbs(before: Sequence[str]) -> Iterator[Candidate]:
    family = "".join(word for word in before if word != "help")
    if family and family not in FAMILIES:
        return
    for name, verb in VERBS.items():
        first, _, second = name.rpartition(" ")
        if first == family:
            yield Candidate(second, verb.help)
    if not family:
        yield from (Candidate(name, text) for name, text in FAMILIES.items())
        yield from (Candidate("--help", "How it is used."), Candidate("--version", "Which version this is."))


def _of_verb(verb: str, rest: Sequence[str], current: str) -> Iterator[Candidate]:
    options = _options(verb)
    by_name = {name: option for option in options for name in option.names}
    last = by_name.get(rest[-1]) if rest else None
    if last is not None and not last.is_flag:
        yield from _values(rest[-1], last)
        return
    name, equals, _ = current.partition("=")
    if equals and name in by_name:
        yield from (Candidate(f"{name}={found.value}") for found in _values(name, by_name[name]))
        return
    if current.startswith("-"):
        yield from (Candidate(option.names[0], option.help) for option in options)
        yield Candidate("--help", "How it is used.")
        return
    yield from _arguments(verb, _positional(rest, by_name), rest, current)


def _values(name: str, option: _Option) -> Iterator[Candidate]:
    """Yield what an option may be given."""
    if name.endswith(_FILES):
        raise _FileWanted
    yield from map(Candidate, option.choices)


def _arguments(verb: str, given: Sequence[str], rest: Sequence[str], current: str) -> Iterator[Candidate]:
    """Yield what stands without an option, behind some that is given already."""
    takes = _TAKES.get(verb)
    if takes == "file" or (verb == "download" and len(given) == 1):
        raise _FileWanted
    if takes is None:
        yield from map(Candidate, _choices(verb) if not given else ())
    elif not (given and verb in _ONE):
        yield from _published(takes, rest, current)


def _published(takes: str, rest: Sequence[str], current: str) -> Iterator[Candidate]:
    from caterva2.cli.names import names_like, root_names
    from caterva2.cli.options import Connection

    file = _given(rest, "--token-file")
    connection = Connection(
        subscriber=_given(rest, "--subscriber"), token_file=None if file is None else Path(file).expanduser()
    )
    transport = connection.transport(SILENCE_S)
    yield from map(Candidate, root_names(transport) if takes == "root" else names_like(transport, current))


def _given(rest: Sequence[str], name: str) -> str | None:
    """Return what an option is given on the line, if it is there."""
    for word, following in pairwise([*rest, ""]):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def _positional(rest: Sequence[str], options: dict[str, _Option]) -> list[str]:
    found, skip = [], False
    for word in rest:
        option = options.get(word)
        if not skip and not word.startswith("-"):
            found.append(word)
        skip = not skip and option is not None and not option.is_flag
    return found


# -- what the parser knows -------------------------------------------------------------------------


def _parser_of(verb: str) -> App:
    from caterva2.cli.app import build_app

    app = build_app()
    for word in verb.split():
        app = app[word]
    return app


def _options(verb: str) -> list[_Option]:
    found = []
    for argument in _parser_of(verb).assemble_argument_collection():
        names = tuple(name for name in argument.names if name.startswith("--"))
        if names and argument.parse and argument.show:
            text = " ".join((argument.parameter.help or "").split())
            found.append(_Option(names, text, _literals(argument.hint), argument.hint is bool))
    return found


def _choices(verb: str) -> tuple[str, ...]:
    """Return the words that the argument of a verb may be, if it is one of some."""
    for argument in _parser_of(verb).assemble_argument_collection():
        if not any(name.startswith("--") for name in argument.names):
            return _literals(argument.hint)
    return ()


def _literals(hint: Any) -> tuple[str, ...]:  # Any: a type
    if get_origin(hint) is Literal:
        return tuple(map(str, get_args(hint)))
    return tuple(choice for inner in get_args(hint) for choice in _literals(inner))
