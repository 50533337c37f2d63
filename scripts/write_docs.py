"""Put measured tables into the README: flagship, claims (``runs/claims/*.json``), real pairs (``runs/real``).

    python scripts/write_docs.py          # or: make docs

A figure gets into the README by this script only, so none is there that was not measured.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

README = Path("README.md")
FLAGSHIP, CLAIMS, REAL = Path("runs/flagship/flagship.md"), Path("runs/claims"), Path("runs/real")


def put(text: str, name: str, content: str) -> str:
    """Replace what stands between the markers ``name``."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    if not re.search(pattern, text, re.DOTALL):
        raise SystemExit(f"{README} has no markers for '{name}'")
    return re.sub(pattern, lambda match: match[1] + content.strip() + "\n" + match[2], text, flags=re.DOTALL)


def claims_table(folder: Path) -> str:
    """One row a claim, from the objects that ``guerdon claim SLUG --json`` prints."""
    lines = [
        "| claim | verdict | effect (95% interval) | negative control | seeds | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted(folder.glob("*.json")):
        row = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
        low, high = row["interval"]
        lines.append(
            f"| {row['slug']} | {row['verdict']} | {row['effect']:.3f} ({low:.3f} to {high:.3f}) | "
            f"{row['control']:.3f} | {', '.join(map(str, row['seeds']))} | {row['seconds'] / 60:.1f} |"
        )
    return "\n".join(lines)


def real_table(folder: Path) -> str:
    """One row a data set, from the summaries of ``scripts/real_pairs.py``."""
    lines = [
        "A model of 64 dimensions from scratch, seed 11: accuracy on held-out pairs (`scripts/real_pairs.py`):",
        "",
        "| data | pairs, held out | reward model | bag of words | length alone |",
        "|---|---|---|---|---|",
    ]
    for path in sorted(folder.glob("*/summary.json")):
        summary = json.loads(path.read_text(encoding="utf-8"))
        if "grades" not in summary:  # a run of another kind on real data
            continue
        cells = []
        for judge in ("reward model", "bag of words", "length alone"):
            value, low, high = summary["grades"][judge]["accuracy"]
            cells.append(f"{value:.3f} ({low:.3f} to {high:.3f})")
        pairs = summary["pairs"]
        lines.append(f"| {path.parent.name} | {pairs['training']}, {pairs['held-out']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    text = README.read_text(encoding="utf-8")
    if FLAGSHIP.exists():
        command = "Measured by `make flagship` (mean ± standard deviation over seeds):"
        text = put(text, "flagship", f"{command}\n\n{FLAGSHIP.read_text(encoding='utf-8')}")
    if list(CLAIMS.glob("*.json")):
        text = put(text, "claims", claims_table(CLAIMS))
    if list(REAL.glob("*/summary.json")):
        text = put(text, "real", real_table(REAL))
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
