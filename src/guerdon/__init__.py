"""guerdon: the reward layer for generative models and agents."""

from __future__ import annotations

__version__ = "0.1.0"
