"""Follow-up likelihoods of one dialogue: with the prefix read once, and read anew for each of 120 utterances.

shared  `conditional_log_likelihood` with its cache.
naive   the same function without it: every follow-up is passed through behind the whole dialogue, in batches.

Last line: {"name", "seconds_shared", "seconds_naive", "ratio", "largest_difference", "parity"}: processor seconds a
dialogue, the median over the rounds; ratio is naive to shared; parity is whether all log-probabilities agree to 1e-4.
Status 1 where they do not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import torch

from guerdon.models.follow_up import ConversationFormatter, conditional_log_likelihood
from guerdon.models.tiny_causal import tiny_causal
from guerdon.rewards.text.follow_up_sets import DEFAULT_SETS

WORDS = "we read the question again and put down what it gives, then take the next step with care. "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--words", type=int, default=200, help="words of the response")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args()
    said = [text for one in DEFAULT_SETS for text in (*one.positives, *one.negatives)]
    model, tokenizer = tiny_causal([*said, WORDS], hidden=options.hidden, layers=options.layers)
    response = " ".join((WORDS.split() * (1 + options.words // 10))[: options.words])
    prefix, targets = ConversationFormatter(tokenizer).encode("How is this solved?", response, said)
    times: dict[bool, list[float]] = {True: [], False: []}
    found = {}
    conditional_log_likelihood(model, prefix, targets[:2])  # everything is loaded
    for turn in range(options.rounds):
        for cache in (True, False) if turn % 2 == 0 else (False, True):
            began = time.process_time()
            found[cache], _ = conditional_log_likelihood(model, prefix, targets, batch_size=16, cache=cache)
            times[cache].append(time.process_time() - began)
    shared, naive = statistics.median(times[True]), statistics.median(times[False])
    gap = float((found[True] - found[False]).abs().max())
    same = torch.allclose(found[True], found[False], atol=1e-4, rtol=0)
    print(f"{len(prefix)} tokens, {len(targets)} follow-ups of {sum(map(len, targets)) / len(targets):.1f} tokens")
    print(f"shared {shared:.3f} s, naive {naive:.3f} s, largest difference {gap:.1e}")
    told = {
        "name": "follow_up", "seconds_shared": round(shared, 4), "seconds_naive": round(naive, 4),
        "ratio": round(naive / shared, 2), "largest_difference": gap, "parity": same,
    }  # fmt: skip
    print(json.dumps(told), flush=True)
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
