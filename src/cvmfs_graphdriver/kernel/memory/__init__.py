"""The memory of a process: its heap, its limit, and how often garbage is looked for."""
