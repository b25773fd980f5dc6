"""From entries of a tree to chunks, objects and catalogs; ``tree`` is the way in."""
