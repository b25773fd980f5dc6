"""The EROFS plane's parts: flattened images, links to cached objects, the fetch trigger."""
