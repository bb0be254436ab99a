"""Predictions of new data with a trained ensemble."""
