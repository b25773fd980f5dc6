"""Layer streams: decompression, tar headers, sparse files, checked entries."""
