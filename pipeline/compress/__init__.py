"""Compression: networks to smaller or faster networks, and number formats."""
