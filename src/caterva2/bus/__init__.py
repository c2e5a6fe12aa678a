"""The control plane: who has what, and what changed. The only importer of the NATS client.

| module | what |
|---|---|
| `server` | a nats-server as a supervised child |
| `connection` | where the bus is; one connection that comes back by itself |
| `buckets` | the key-value buckets, as operations |
| `keys`, `records` | how names and values are written there |
| `view` | follows a part of a bucket, and notices when it may have missed something |
| `catalogue` | fills a `caterva2.model.catalogue.Catalogue` from the buckets |
| `announcer` | makes the buckets equal to a publisher's catalogue |

Nothing in the buckets is the only copy of anything: publishers can write all of it again.
"""
