"""Objectives: the formulas of the papers as pure functions on tensors.

One concept a file, one formula a function, its source in the docstring. Nothing here holds state, reads a file or knows
a model class. Half-precision inputs are computed in float32 (float64 stays float64), because log-probabilities and
ratios lose their meaning in bfloat16.
"""
