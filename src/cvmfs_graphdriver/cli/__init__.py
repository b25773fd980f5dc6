"""The commands: one per file; text, progress, tables and exit codes."""
