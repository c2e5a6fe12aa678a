"""Errors as values: whatever they carry, they can be sent to another process."""

from __future__ import annotations

import copy
import pickle

import pytest

from caterva2 import errors

MADE = {
    errors.NotFound: ("foo/x", "it is not there"),
    errors.InvalidRange: ("no range", 3),
    errors.TooLarge: (2, 1),
    errors.Changed: ("foo/x", "old", "new"),
    errors.Unavailable: ("away", 3.0),
    errors.NotCached: ("not here", 4.0),
    errors.IntegrityError: ("foo/x", "http://host", 1, 2),
    errors.StateInUse: ("/var/lib/caterva2", 7),
    errors.CannotListen: ("host:1", "it is taken"),
}
"""What those are made from that carry data; the others take a message."""


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_survive_pickling_and_copying(name) -> None:
    kind = getattr(errors, name)
    error = kind(*MADE.get(kind, ("a message",)))
    error.add_note("while reading")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
