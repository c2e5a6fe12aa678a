"""For tests of this package and of others: real services in one process, contracts, faults, sample data."""
