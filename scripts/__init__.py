"""Programs for working on this checkout; not installed."""
