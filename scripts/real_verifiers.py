"""The answer verifiers against people's labels of real sampled solutions: who agrees, and who is right where not.

    python scripts/real_verifiers.py ../shared/data/gsm8k/model_solutions.jsonl.gz

The file holds rows of prompt, completion, answer (the reference) and label (correct or not). For each verifier:
confusion table, its failures, and the rows where it and the label differ. Who is right there is decided by reading the
answer that the completion states for itself, in GSM8K's form ``A: 26``, by nothing but a comparison of digits; a row
where that is not possible is left to a person. The same once more on completions without that line, where the answer
has to be found in the last sentence of the working. Writes Markdown to ``runs/real/verifiers.md``.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from guerdon.cli.output import show, table
from guerdon.core.data import find_source, read_rows
from guerdon.core.outcome import Failed
from guerdon.metrics.verdicts import wilson_interval
from guerdon.rewards.text.final_answer import regex_verifier, rule_verifier, verify_answer
from guerdon.rewards.text.symbolic import SymbolicVerifier

VERIFIERS = {
    "rule verifier": rule_verifier,
    "regex verifier": regex_verifier,
    "math-verify on what is stated": SymbolicVerifier(rules_first=False, deadline=30.0),
    "math-verify on the text": SymbolicVerifier(rules_first=False, extraction="math_verify", deadline=30.0),
}
MOST_LISTED = 60  # disagreements of a section
NEEDED = ("prompt", "completion", "answer", "label")


def by_digits(completion: str, answer: str) -> bool | None:
    """Whether the last line "A: x" says the reference digit for digit; None where it has no such line or x is no plain
    number."""
    said = [line[2:].strip() for line in completion.splitlines() if line.startswith("A:")]
    try:
        values = [Decimal(text.replace(",", "").lstrip("$").rstrip(".%")) for text in (*said[-1:], answer)]
    except InvalidOperation:
        return None
    return values[0] == values[1] if len(values) == 2 else None


def confusion(labels: Sequence[bool], outcomes: Sequence[Any]) -> Counter[tuple[bool, str]]:
    """Counts by (label, "accepted" | "refused" | "no score")."""
    return Counter(
        (label, "no score" if one is None or isinstance(one, Failed) else "accepted" if one == 1.0 else "refused")
        for label, one in zip(labels, outcomes, strict=True)
    )


def disagreements(rows: Sequence[dict[str, Any]], outcomes: Sequence[Any]) -> list[dict[str, Any]]:
    """The rows where verifier and label differ, with who is right: "label", "verifier", or "to be read"."""
    found = []
    for place, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
        accepted = outcome == 1.0
        if accepted == row["label"]:
            continue
        truth = by_digits(row["completion"], str(row["answer"]))
        right = "to be read" if truth is None else "verifier" if truth == accepted else "label"
        found.append({**row, "row": place + 1, "accepted": accepted, "right": right})
    return found


def without_last_line(completion: str) -> str:
    """``completion`` up to its line "A: x"."""
    return "\n".join(line for line in completion.splitlines() if not line.startswith("A:"))


def page(
    name: str, labels: Sequence[bool], outcomes: Sequence[Any], differ: Sequence[dict[str, Any]], said: Sequence[str]
) -> list[str]:
    """The section of one verifier, as lines of Markdown."""
    counts = confusion(labels, outcomes)
    kinds = ("accepted", "refused", "no score")
    lines = [f"## {name}", "", "| label | accepted | refused | no score |", "|---|---|---|---|"]
    for label in (True, False):
        cells = " | ".join(str(counts[label, kind]) for kind in kinds)
        lines.append(f"| {'correct' if label else 'wrong'} | {cells} |")
    agree = len(labels) - len(differ)
    low, high = wilson_interval(agree, len(labels))
    who = Counter(row["right"] for row in differ)
    lines += [
        "", f"Agrees with {agree} of {len(labels)} labels: {agree / len(labels):.2%} [{low:.2%}, {high:.2%}].",
        f"Of {len(differ)} disagreements the verifier is right in {who['verifier']}, the label in {who['label']}; "
        f"{who['to be read']} are for a person to read.", "",
    ]  # fmt: skip
    if len(differ) > MOST_LISTED:
        lines += [f"The first {MOST_LISTED} of them:", ""]
    for row in differ[:MOST_LISTED]:
        judged = said[row["row"] - 1]
        verdict = verify_answer(judged, str(row["answer"]))
        lines += [
            f"### row {row['row']}: label {'correct' if row['label'] else 'wrong'}, "
            f"{'accepted' if row['accepted'] else 'refused'}; right: {row['right']}", "",
            f"Reference `{row['answer']}`; the rules read `{verdict.stated}` ({verdict.reason}).", "",
            *(f"    {line}" for line in judged.splitlines()), "",
        ]  # fmt: skip
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/real/verifiers.md"))
    given = parser.parse_args()
    rows = [row for _, row in read_rows(find_source(given.file), required=NEEDED)]
    said, labels = [row["completion"] for row in rows], [bool(row["label"]) for row in rows]
    solution = [str(row["answer"]) for row in rows]
    lines, told = [f"# Verifiers on {given.file.name}", ""], []
    shown = {"": said, ", without the last line": list(map(without_last_line, said))}
    for kind, texts in shown.items():
        for verifier_name, verifier in VERIFIERS.items():
            name = verifier_name + kind
            outcomes = verifier(None, texts, solution=solution)
            differ = disagreements(rows, outcomes)
            counts = confusion(labels, outcomes)
            who = Counter(row["right"] for row in differ)
            cells = [counts[label, kind] for label in (True, False) for kind in ("accepted", "refused")]
            failed = sum(isinstance(one, Failed) for one in outcomes)
            told.append([name, *cells, failed, who["verifier"], who["label"], who["to be read"]])
            lines += page(name, labels, outcomes, differ, texts)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text("\n".join(lines), encoding="utf-8")
    columns = ["verifier", "correct accepted", "correct refused", "wrong accepted", "wrong refused", "failed",
               "verifier right", "label right", "to be read"]  # fmt: skip
    show(table(f"{len(rows)} labelled solutions", columns, told))
    show(f"The disagreements: {given.out}")


if __name__ == "__main__":
    main()
