"""Catalogs: schema, rows and entries, reading, loading and writing."""
