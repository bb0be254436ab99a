"""Exploring configurations: spaces, the journal, and the driver that runs trials and finalists."""
