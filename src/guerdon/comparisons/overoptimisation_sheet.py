"""What an over-optimisation curve shows a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from guerdon.core.sheet import Cell, Example, Examples, Line, Lines, Part, Sheet, Table
from guerdon.metrics.intervals import Interval
from guerdon.metrics.overoptimisation import Fit

if TYPE_CHECKING:
    from guerdon.comparisons.overoptimisation import Overoptimisation

UNITS = "standard deviations of the base's answers"


def overoptimisation_sheet(found: Overoptimisation) -> Sheet:
    """See `guerdon.comparisons.overoptimisation.Overoptimisation.sheet`."""
    proxy, gold = found.names
    facts = {
        "proxy": found.identities[0] or proxy, "gold": found.identities[1] or gold,
        "prompts": f"{found.prompts}" + (f", {found.left_out} left out for too few answers" if found.left_out else ""),
        "answers": str(found.answers),
        "answers without a score": "; ".join(
            f"{name}: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items())
            for name, kinds in found.problems.items() if kinds
        ) or "none",
        "order agreement within prompts": f"{found.agreement.order} (chance 0.5)",
    }  # fmt: skip
    parts: list[Part] = [_curve(found), *_figures(found), *_policies(found), *_fits(found), *_examples(found)]
    notes = [
        f"Scores are in {UNITS}; intervals (95%) resample prompts, and every n is estimated from all answers at once.",
        "The divergence of best-of-n, log n - (n - 1)/n, is exact without ties and an upper bound with them.",
        "Gold is a reward too: where it shares a fault with the proxy, both rise and nothing is seen here. Beyond the "
        "largest n nothing is known, and another way of climbing (training) may reach other answers.",
    ]
    return Sheet("benchmark", f"Over-optimisation of {proxy} against {gold}", _lead(found), facts, parts, notes)


def _lead(found: Overoptimisation) -> str:
    proxy, gold = found.names
    peak, most = found.ns[found.turn.peak], found.ns[-1]
    rises = found.proxy[-1].value, found.gold[-1].value
    begin = f"Best-of-{most} by {proxy} raises it by {rises[0]:.2f} and {gold} by {rises[1]:.2f} "
    verdict = found.turn.over_optimised
    drop = found.turn.drop
    if verdict is True:
        return begin + f"({UNITS}); {gold} is highest at n = {peak} and has lost {drop} of that by n = {most}."
    if verdict is False:
        return begin + f"({UNITS}); {gold} does not fall again up to n = {most}."
    return begin + f"({UNITS}); whether {gold} falls again by n = {most} is open (it loses {drop} after its peak)."


def _curve(found: Overoptimisation) -> Table:
    rows: list[list[Cell]] = [
        [n, kl, *_cells(proxy), *_cells(gold), ceiling.value]
        for n, kl, proxy, gold, ceiling in zip(found.ns, found.kl, found.proxy, found.gold, found.ceiling, strict=True)
    ]
    columns = ["n", "KL (nats)", "proxy", "low", "high", "gold", "gold low", "gold high", "gold if gold chose"]
    return Table("Best-of-n by the proxy", columns, rows, f"In {UNITS}; 0 is a single answer.")


def _figures(found: Overoptimisation) -> list[Part]:
    curves = (("proxy", found.proxy), ("gold", found.gold), ("gold if gold chose", found.ceiling))
    by_n = [_line(name, [float(n) for n in found.ns], values) for name, values in curves]
    parts: list[Part] = [Lines("Best-of-n", by_n, "n", UNITS, log_x=True)]
    lines = [_line(name, found.kl, values) for name, values in curves[:2]]
    moved = sorted(((one.kl.value, one) for one in found.policies if one.kl is not None), key=lambda pair: pair[0])
    if moved:
        at = [kl for kl, _ in moved]
        lines.append(_line("proxy, policies", at, [one.proxy for _, one in moved]))
        lines.append(_line("gold, policies", at, [one.gold for _, one in moved]))
    parts.append(Lines("By divergence from the base", lines, "KL (nats)", UNITS))
    return parts


def _policies(found: Overoptimisation) -> list[Part]:
    if not found.policies:
        return []
    rows: list[list[Cell]] = [
        [one.name, one.answers, None if one.kl is None else one.kl.value, *_cells(one.proxy), *_cells(one.gold)]
        for one in found.policies
    ]
    columns = ["policy", "answers", "KL (nats)", "proxy", "low", "high", "gold", "gold low", "gold high"]
    return [Table("Policies", columns, rows, f"Mean scores in {UNITS}; KL as measured along their own answers.")]


def _fits(found: Overoptimisation) -> list[Part]:
    rows: list[list[Cell]] = []
    fits: tuple[tuple[str, Fit | None], ...] = (("best-of-n", found.fit), ("policies", found.policy_fit))
    for name, fit in fits:
        if fit is not None:
            form = "d (a - b d)" if fit.form == "best-of-n" else "d (a - b log d)"
            rows.append([name, form, fit.alpha, fit.beta, fit.r2, fit.peak_kl if fit.peak_kl < 1e6 else None])
    note = "Gold's gain over d = sqrt(KL); a summary of what was measured, not a forecast."
    columns = ["climbed by", "form", "a", "b", "R2", "turns at KL (nats)"]
    return [Table("Fitted forms", columns, rows, note)] if rows else []


def _examples(found: Overoptimisation) -> list[Part]:
    proxy, gold = found.names
    items = [
        Example(one.prompt[:80], {
            "prompt": one.prompt,
            f"chosen by {proxy}": f"{one.chosen}\n(proxy {one.chosen_scores[0]:.2f}, gold {one.chosen_scores[1]:.2f})",
            f"chosen by {gold}": f"{one.best}\n(proxy {one.best_scores[0]:.2f}, gold {one.best_scores[1]:.2f})",
        })
        for one in found.examples
    ]  # fmt: skip
    return [Examples("Where the proxy's choice costs most", items)] if items else []


def _line(name: str, x: Sequence[float], values: Sequence[Interval]) -> Line:
    return Line(name, list(x), [one.value for one in values], [one.low for one in values], [one.high for one in values])


def _cells(interval: Interval) -> list[Cell]:
    return [interval.value, interval.low, interval.high]
