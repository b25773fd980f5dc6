"""The processes of a mount: keeper and server, and the request that they start with."""
