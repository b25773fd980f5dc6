"""What bash would make of a configuration file."""
