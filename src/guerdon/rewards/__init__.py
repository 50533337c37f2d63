"""Rewards: callables `reward(prompts, completions, **columns) -> list[float | None]`, and their algebra."""
