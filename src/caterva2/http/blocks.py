"""``/api/fetch`` as blocks as they are stored, for clients that decode them."""

from __future__ import annotations

from starlette.responses import Response

from caterva2.http.bodies import piecewise
from caterva2.http.dataset import DataService
from caterva2.http.negotiation import BLOCKS_TYPE
from caterva2.model.manifest import Head
from caterva2.model.selection import Selection
from caterva2.source.blocks import BlockReader

__all__ = ["stored_blocks"]


async def stored_blocks(
    service: DataService, head: Head, selection: Selection, headers: dict[str, str]
) -> Response | None:
    """Answer with the blocks that hold a part of an array.

    Parameters
    ----------
    service : DataService
    head : Head
        Of an array.
    selection : Selection
        Of its shape.
    headers : dict

    Returns
    -------
    Response or None
        None where that cannot be done or does not pay: see `BlockReader.plan`.

    Raises
    ------
    Changed, Unavailable, IntegrityError, Corrupt, Unsupported
    """
    blocks = BlockReader(service.source, service.reader.budget)
    plan = await blocks.plan(head, selection)
    if plan is None:
        return None
    if plan.is_small:
        return Response(await blocks.small(plan), headers=headers, media_type=BLOCKS_TYPE)
    return await piecewise(blocks.pieces(plan), plan.nbytes, headers, BLOCKS_TYPE)
