"""A revision as a FUSE file system: attributes, listings, whiteouts, open files."""
