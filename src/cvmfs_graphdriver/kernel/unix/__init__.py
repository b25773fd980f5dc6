"""Unix sockets that we do not serve: systemd's, and those of engines."""
