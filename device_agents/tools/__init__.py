"""Benchmark programs of others: their command lines, and readers of what they print.

The readers are pure (text or bytes to frozen values, times in ms, None for what was not told) and
written for the format rules of the programs' sources, not for single logs. What cannot be read for
certain is not read: a number with a decimal comma or a cut line gives no figure.
"""
