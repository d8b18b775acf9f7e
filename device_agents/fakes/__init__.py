"""Simulated devices in virtual time: product code, for tests and demonstrations."""
