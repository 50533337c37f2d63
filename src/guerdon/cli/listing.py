"""``guerdon list``: the catalogue, read without importing what it lists."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path
from typing import Any

from guerdon.cli.output import show, table
from guerdon.core import catalogue


def print_catalogue(*, as_json: bool) -> None:
    """Print systems, rewards and benchmarks as tables or as one JSON object."""
    content = contents()
    if as_json:
        print(json.dumps(content, ensure_ascii=False, indent=1))
        return
    rows: list[list[str]] = [[s["slug"], s["how"], s["title"], s["source"], s["claim"]] for s in content["systems"]]
    show(table("systems", ("slug", "how", "title", "source", "claim"), rows))
    for kind in ("rewards", "benchmarks"):
        listed = [[entry["name"], entry["summary"], entry["target"]] for entry in content[kind]]
        show(table(kind, ("name", "what it is", "where"), listed))


def contents() -> dict[str, list[dict[str, Any]]]:
    """The catalogue as plain data: "systems", "rewards" and "benchmarks"."""
    systems = [
        {"slug": s.slug, "title": s.title, "source": s.source, "how": s.how, "claim": s.claim, "docs": s.docs}
        for s in catalogue.systems().values()
    ]
    return {
        "systems": systems,
        "rewards": _entries(catalogue.rewards()),
        "benchmarks": _entries(catalogue.benchmarks()),
    }


def _entries(targets: dict[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "target": target, "summary": summary(target)} for name, target in sorted(targets.items())]


def summary(target: str) -> str:
    """The first sentence of the docstring behind "module:attribute", read from the source; "" for other packages'.

    The module itself is not imported: a reward's module loads torch.
    """
    module, _, attribute = target.partition(":")
    if module.partition(".")[0] != "guerdon":
        return ""
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        return ""
    for node in ast.parse(Path(found.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == attribute:
            paragraph = (ast.get_docstring(node) or "").partition("\n\n")[0].replace("\n", " ")
            return paragraph.partition(". ")[0].rstrip(".")
    return ""
