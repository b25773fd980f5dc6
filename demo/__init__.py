"""The demo: real daemons, a real image, and what the thin image saves. Tests use its parts."""
