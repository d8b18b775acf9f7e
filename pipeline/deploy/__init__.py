"""Models on the device: run there, put in use there."""
