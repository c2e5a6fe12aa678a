"""A bar that shows how many bytes are done: that of the Python client."""

from __future__ import annotations

from caterva2.client.progress import bytes_progress

__all__ = ["bytes_progress"]
