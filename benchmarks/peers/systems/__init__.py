"""The systems that are measured, in the order of the table; a peer is added by its module and a line here."""

from __future__ import annotations

from benchmarks.peers.system import System
from benchmarks.peers.systems.blosc2_file import FileOverHttp, LocalFile
from benchmarks.peers.systems.caterva2_release import Release, WarmProxy
from benchmarks.peers.systems.h5grove_server import H5grove
from benchmarks.peers.systems.ours import Ours, OursUndecoded
from benchmarks.peers.systems.tensorstore_zarr import TensorStorePlain, TensorStoreSharded
from benchmarks.peers.systems.zarr_obstore import ZarrObstore

__all__ = ["SYSTEMS"]

SYSTEMS: tuple[System, ...] = (
    Ours(),
    OursUndecoded(),
    TensorStoreSharded(),
    TensorStorePlain(),
    ZarrObstore(),
    Release(),
    FileOverHttp(),
    H5grove(),
    WarmProxy(),
    LocalFile(),
)
