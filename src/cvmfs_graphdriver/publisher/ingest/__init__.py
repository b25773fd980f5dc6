"""From tar entries to chunks, objects and catalogs. To publish a directory, begin here."""
