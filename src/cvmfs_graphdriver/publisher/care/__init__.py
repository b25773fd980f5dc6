"""Looking after a published repository: check, garbage collection, summary."""
