"""Transfers over HTTP: proxies, servers, name servers, failover and geographical order."""
