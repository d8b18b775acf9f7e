"""One way to ask a device about a model file: milliseconds, outputs, accuracy."""
