"""One measurement on one device: when it may begin, what it says, whether to believe it."""
