"""Winner and baseline: trained, written, held against each other, and the final table."""
