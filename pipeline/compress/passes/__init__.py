"""One file per pass."""
