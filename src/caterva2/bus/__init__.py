"""The control plane: who has what, and what changed. The only importer of the NATS client.

| module | what |
|---|---|
| `server` | a nats-server as a supervised child |
| `address`, `access`, `locate` | where the bus is, and what a service shows it; found from its settings |
| `client` | the client of NATS, and a connection to one server |
| `connection` | a connection that comes back by itself |
| `buckets`, `streams` | the key-value buckets, as operations; how they are made |
| `keys`, `records` | how names and values are written there |
| `view` | follows a part of a bucket, and notices when it may have missed something |
| `catalogue` | fills a `caterva2.model.catalogue.Catalogue` from the buckets |
| `leader` | whether a bucket could be written to |
| `permissions`, `check` | what a service may do on an existing NATS; trying that out |
| `announcer` | makes the buckets equal to a publisher's catalogue |

Nothing in the buckets is the only copy of anything: publishers can write all of it again.
"""
