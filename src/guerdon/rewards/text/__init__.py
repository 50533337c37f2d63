"""Rewards that look at text."""

from guerdon.rewards.text.answer_tags import answer_format, answer_present

__all__ = ["answer_format", "answer_present"]
