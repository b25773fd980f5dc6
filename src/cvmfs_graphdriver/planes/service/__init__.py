"""The processes of a mount: keeper and server, and the request that starts them."""
