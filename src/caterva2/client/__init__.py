"""The Python client: `connect` to a subscriber, and read its datasets as if they were here.

>>> from caterva2 import connect
>>> client = connect("http://127.0.0.1:8002")          # doctest: +SKIP
>>> array = client["foo/dir1/ds-2d.b2nd"]              # doctest: +SKIP
>>> array[0, 10:20]                                    # doctest: +SKIP
"""

from __future__ import annotations

from caterva2.client.array import Array
from caterva2.client.cache import Cache
from caterva2.client.client import Client
from caterva2.client.dataset import File, Frame
from caterva2.client.events import EventStream
from caterva2.client.group import Directory, Root
from caterva2.client.location import Location, parse_location
from caterva2.client.opening import connect, open
from caterva2.client.records import CacheCheck, Cached, Download, Event, Followed, RootInfo, Row, SourceInfo
from caterva2.client.shared import close_shared
from caterva2.client.timings import Timing

__all__ = [
    "Array",
    "Cache",
    "CacheCheck",
    "Cached",
    "Client",
    "Directory",
    "Download",
    "Event",
    "EventStream",
    "File",
    "Followed",
    "Frame",
    "Location",
    "Root",
    "RootInfo",
    "Row",
    "SourceInfo",
    "Timing",
    "close_shared",
    "connect",
    "open",
    "parse_location",
]
