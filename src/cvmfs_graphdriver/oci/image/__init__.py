"""Image documents: manifests, references, platforms, sources of images, thin images."""
