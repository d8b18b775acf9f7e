"""Runs on the device: Python 3.9 or newer, standard library, and one runtime. Nothing of ours."""
