"""Latency tables: what every op of a search space costs on a device, inside a network."""
