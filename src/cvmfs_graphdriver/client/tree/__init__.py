"""A mounted revision: catalogs, nodes, inode numbers, magic attributes."""
