"""What a small slice moves through each client that people have: ``python -m benchmarks.integrations``."""
