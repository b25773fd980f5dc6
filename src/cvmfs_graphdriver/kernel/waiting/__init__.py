"""Waits with a limit: for threads, for locks, and what is logged when one takes long."""
