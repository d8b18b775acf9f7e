"""Architecture search: spaces, strategies, estimators, and the loop that joins them."""
