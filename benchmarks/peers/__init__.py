"""Ours beside the peers: the same reads of the same values in one run. See ``python -m benchmarks.peers -h``.

The orchestrator (`__main__`) starts the servers of every system, and for each a runner in that system's own
environment, which opens the array with the library that its users have and times it. To add a peer, add a
module to `systems`.
"""
