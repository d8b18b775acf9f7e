"""Estimators: one metric of a network each, by whatever means."""
