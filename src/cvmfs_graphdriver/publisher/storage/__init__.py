"""Where a repository's files are kept: a local directory, or S3 with its lock."""
