"""Pure measures on arrays and tensors: detection, arena, intervals, drift and diversity."""
