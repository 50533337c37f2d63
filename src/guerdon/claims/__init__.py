"""One experiment a system: its central claim, measured against its own baseline with a negative control, on a CPU."""
