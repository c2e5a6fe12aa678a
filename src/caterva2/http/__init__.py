"""HTTP: the only place that knows status codes. Written once, used by all services."""
