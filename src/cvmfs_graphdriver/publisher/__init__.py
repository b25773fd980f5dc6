"""Writing CernVM-FS repositories: storage, ingestion of tar streams, catalogs, signing.

Knows neither Docker nor containerd.
"""
