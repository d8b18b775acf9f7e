"""How to reach a device and how to time a network on it."""
