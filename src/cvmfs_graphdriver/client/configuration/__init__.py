"""Parameters of a repository: where they are searched, how they are read, what they mean."""
