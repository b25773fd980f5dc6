"""Waits: for threads and locks, with a limit and a line in the log; for the signal that ends a daemon."""
