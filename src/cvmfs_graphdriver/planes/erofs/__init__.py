"""Parts of the EROFS plane: flattened images, links to cached objects, the fetch trigger."""
