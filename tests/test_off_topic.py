"""A short answer on the topic against a long one off it, for any subject."""

from __future__ import annotations

import pytest

from guerdon.audits.off_topic import OffTopicItem, off_topic_probe
from guerdon.core.errors import GuerdonError
from guerdon.rewards.subject import RewardSubject
from guerdon.rewards.text.relevance import LengthIncentive, Relevance

ITEMS = [
    OffTopicItem(f"tell me about the {one}", f"the {one} is small", "boats sail far over many wide and stormy seas")
    for one in ("red house", "old wall", "green hill")
]


def test_length_is_fooled_and_relevance_is_not() -> None:
    assert off_topic_probe(RewardSubject(Relevance()), ITEMS).won.value == 1.0
    found = off_topic_probe(RewardSubject(LengthIncentive()), ITEMS)
    assert found.won.value == 0.0 and found.won.total == 3 and found.left_out == 0
    with pytest.raises(GuerdonError, match="at least one item"):
        off_topic_probe(RewardSubject(Relevance()), [])
