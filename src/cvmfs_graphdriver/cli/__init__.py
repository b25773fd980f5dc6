"""The commands: text, progress, tables and exit statuses.

One file per command; a group of commands is a folder whose ``__init__`` lists them. To add a command, write
its file and add it to the table in ``main`` or in its group.
"""
