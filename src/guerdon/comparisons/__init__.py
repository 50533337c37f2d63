"""Rewards side by side: whether two of them ask for the same behaviour, on a process or on samples."""
