"""The broker: where the bus is, and what is published. It carries no data and is no source of truth."""
