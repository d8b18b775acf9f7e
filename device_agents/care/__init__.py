"""A board before and after it measures: recognised, examined, set up, cleaned."""
