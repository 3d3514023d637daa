"""The toy world: a data set that needs no download, every pixel and word of it drawn from a seed. See README.md."""
