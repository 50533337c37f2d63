"""Loops: climb a reward, train a detector, pre-train the embedded base."""
