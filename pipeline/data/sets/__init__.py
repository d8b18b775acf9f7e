"""One file per data set: a dataclass of its options with a `load()` (`pipeline.data`)."""
