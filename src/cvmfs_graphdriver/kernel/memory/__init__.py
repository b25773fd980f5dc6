"""The memory of a process: its heap, and how often garbage is looked for."""
