"""What each kind of service may do on the bus, as the subjects that an administrator permits.

NATS permits subjects, whole tokens at a time. Reading a bucket takes three: what is known of its stream, a
consumer of one's own, and answers to the server's flow control. Writing a key takes the subject of the key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from caterva2.bus.buckets import ALIVE, BUCKETS, DATA, ROOTS, SOURCES
from caterva2.bus.keys import root_filter, root_key

__all__ = ["SOURCES", "Permissions", "Role", "permissions_of", "server_block"]

Role = Literal["broker", "publisher", "subscriber"]

_API = "$JS.API"


@dataclass(frozen=True, slots=True)
class Permissions:
    """The subjects that a user needs.

    Attributes
    ----------
    publish, subscribe : tuple of str
    """

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def permissions_of(
    role: Role, roots: Sequence[str] = (), *, republish: bool = False, domain: str | None = None
) -> Permissions:
    """Return the least that a service needs.

    Parameters
    ----------
    role : {"broker", "publisher", "subscriber"}
        A broker makes the buckets and reads them, a publisher claims and announces its roots, a subscriber
        only reads.
    roots : sequence of str
        The only ones that a publisher may claim and announce; with none, all.
    republish : bool
        Whether a subscriber may announce itself as a further source.
    domain : str, optional
        For users of a leaf node: the domain of the cluster, to which it maps what they ask for.
    """
    publish = [subject for bucket in BUCKETS for subject in _reading(bucket)]
    if role == "broker":
        publish += [f"{_API}.STREAM.CREATE.KV_{bucket}" for bucket in BUCKETS]
    elif role == "publisher":
        publish += [f"{_API}.STREAM.MSG.GET.KV_{bucket}" for bucket in (ROOTS, ALIVE)]
        publish += [f"$KV.{bucket}.{key}" for bucket, key in _keys(roots)]
    elif republish:
        publish.append(f"$KV.{SOURCES}.*")
    if domain is not None:
        publish = [_mapped(subject, f"$JS.{domain}.API") for subject in publish]
    return Permissions(tuple(publish), ("_INBOX.>",))


def _mapped(subject: str, api: str) -> str:
    if subject.startswith("$KV."):
        return f"{api}.{subject}"
    return subject.replace(_API, api, 1)


def _reading(bucket: str) -> list[str]:
    stream = f"KV_{bucket}"
    return [
        f"{_API}.STREAM.INFO.{stream}",
        f"{_API}.CONSUMER.CREATE.{stream}.*.$KV.{bucket}.>",
        f"$JS.FC.{stream}.>",
    ]


def _keys(roots: Iterable[str]) -> list[tuple[str, str]]:
    names = list(roots)
    if not names:
        return [(bucket, ">") for bucket in (ROOTS, ALIVE, DATA)]
    return [(bucket, root_key(name)) for name in names for bucket in (ROOTS, ALIVE)] + [
        (DATA, root_filter(name)) for name in names
    ]


def server_block(user: str, permissions: Permissions) -> str:
    """Return a user for the configuration of nats-server, with a password that its environment has.

    Parameters
    ----------
    user : str
        Its name; the variable is called after it.
    permissions : Permissions
    """
    variable = re.sub(r"[^A-Z0-9]", "_", user.upper()) + "_PASSWORD"
    return "\n".join(
        [
            "authorization { users: [",
            f"  {{ user: {json.dumps(user)}, password: ${variable}, permissions: {{",
            *_list("publish", permissions.publish),
            *_list("subscribe", permissions.subscribe),
            "  } }",
            "] }",
        ]
    )


def _list(name: str, subjects: Sequence[str]) -> list[str]:
    return [f"    {name}: {{ allow: [", *(f"      {json.dumps(subject)}" for subject in subjects), "    ] }"]
