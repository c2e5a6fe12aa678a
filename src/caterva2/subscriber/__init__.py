"""The subscriber: follows the catalogue, fetches on demand, keeps what was needed, serves it."""
