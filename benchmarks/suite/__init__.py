"""asv suites."""
