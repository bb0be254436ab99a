"""The study folder: where each file lies, how it is written, and how it is read back and checked."""
