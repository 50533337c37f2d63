"""How certain the policy was while it wrote its rationale: Shop-R1's reward without labels, and its whole reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash
from guerdon.core.json_actions import SHOP_ACTIONS, JsonActionParser, ParsedAction
from guerdon.core.segments import token_offsets
from guerdon.models.sequence_log_probs import chat_ids
from guerdon.objectives.self_certainty import Form, self_certainty
from guerdon.rewards.compose import weighted_sum
from guerdon.rewards.composite import Composite
from guerdon.rewards.policy_bound import AsksPolicy
from guerdon.rewards.text.hierarchical import shop_r1

__all__ = ["RationaleCertainty", "shop_r1_with_certainty"]


class RationaleCertainty(AsksPolicy):
    """Mean self-certainty over the tokens of the rationale, >= 0; 0 where a completion has no rationale to be read.

    form:        of `guerdon.objectives.self_certainty`; to be chosen, since the paper's formula and figure differ.
    parser:      finds the rationale; default Shop-R1's.
    ceiling:     the most that one token counts, in nats. batch_size: rows a forward pass.

    The policy is handed over by `guerdon.trainers.policy_link.PolicyLink` in a TRL trainer, or by ``bind_policy``; its
    weights are no part of the identity, since they change at every step. Generic, short and repeated rationales are the
    most certain: keep its weight small (0.005) and watch their length and variety, which `shop_r1` logs. In the paper
    type accuracy and F1 are better without it.

    Source: Shop-R1 (arXiv 2507.17842), equation 3.
    """

    groupwise = False
    on_failure = "raise"
    version = "1"

    def __init__(
        self,
        form: Form,
        *,
        parser: Callable[[str], ParsedAction] | None = None,
        ceiling: float = 100.0,
        batch_size: int = 8,
        name: str = "rationale_certainty",
    ) -> None:
        if form not in get_args(Form):
            raise unknown("form of self-certainty", form, get_args(Form))
        if not ceiling > 0 or batch_size < 1:
            raise GuerdonError(f"ceiling and batch_size must be above 0, got {ceiling} and {batch_size}")
        self.form: Form = form
        self.parser = JsonActionParser(SHOP_ACTIONS) if parser is None else parser
        self.ceiling, self.batch_size, self.__name__ = float(ceiling), batch_size, name
        # log V is not known before the policy is; "kl_pu" stays below it, which no vocabulary takes past 20.
        self.range = (0.0, {"scaled": 1.0, "kl_pu": 20.0, "kl_up": self.ceiling}[form])

    @torch.no_grad()
    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], *, completion_ids: Any = None, **columns: Any
    ) -> list[float]:
        """N rewards. Raises GuerdonError without a policy, or for token ids that are not one list a completion."""
        model, tokenizer, temperature, template = self.bound()
        ids = self.ids_of(prompts, completions, completion_ids)
        asked = [chat_ids(prompt, tokenizer, template) for prompt in prompts]
        masks = [self._rationale(row, tokenizer) for row in ids]
        was_training = model.training
        model.eval()
        try:
            found: list[float] = []
            for start in range(0, len(ids), self.batch_size):
                some = slice(start, start + self.batch_size)
                found += self._values(model, asked[some], ids[some], masks[some], temperature)
        finally:
            model.train(was_training)
        return found

    def _values(
        self, model: Any, asked: list[list[int]], ids: list[list[int]], masks: list[Tensor], temperature: float
    ) -> list[float]:
        whole = [[*before, *said] for before, said in zip(asked, ids, strict=True)]
        longest = max(map(len, whole))
        inputs = torch.zeros(len(whole), longest, dtype=torch.long)
        real = torch.zeros_like(inputs)
        for place, row in enumerate(whole):
            inputs[place, : len(row)], real[place, : len(row)] = torch.tensor(row), 1
        device = model.device
        logits = model(input_ids=inputs.to(device), attention_mask=real.to(device), use_cache=False).logits
        found = []
        for place, (before, said) in enumerate(zip(asked, ids, strict=True)):
            mask = masks[place]
            if not bool(mask.any()):
                found.append(0.0)
                continue
            # The logits at a place are of the token behind it; one row at a time keeps float32 copies small.
            drawn = logits[place, len(before) - 1 : len(before) - 1 + len(said)][mask.to(device)] / temperature
            every = torch.ones(len(drawn), dtype=torch.bool, device=device)
            found.append(float(self_certainty(drawn, every, form=self.form, ceiling=self.ceiling)))
        return found

    def _rationale(self, ids: list[int], tokenizer: Any) -> Tensor:
        """bool [T]: the tokens that hold characters of the rationale."""
        mask = torch.zeros(len(ids), dtype=torch.bool)
        text, offsets = token_offsets(tokenizer, ids)
        parsed = self.parser(text)
        if parsed.ok and parsed.span is not None:
            start, end = parsed.span.start, parsed.span.end
            for place, token in enumerate(offsets):
                mask[place] = token.start < token.end and token.start < end and token.end > start
        return mask

    def identity(self) -> str:
        """Name, version, and a hash of the form, the ceiling and the parser."""
        reader = vars(self.parser) if hasattr(self.parser, "__dict__") else {}
        return f"{self.__name__}@{self.version}#{config_hash([self.form, self.ceiling, dict(reader)])}"


def shop_r1_with_certainty(
    form: Form = "kl_up",
    *,
    alpha: float = 0.005,
    strict: bool = True,
    name: str = "shop_r1_with_certainty",
    **tree: Any,
) -> Composite:
    """v(a) + alpha s(r): Shop-R1's whole reward; needs the policy (`PolicyLink`).

    form:  "kl_up", with which alpha 0.005 gives the size of the paper's figure (+0.13 at a certainty of 26); the
           printed formula gives at most 4e-7. tree: settings of `shop_r1`.
    """
    certainty = RationaleCertainty(form, parser=JsonActionParser(SHOP_ACTIONS, strict=strict))
    return weighted_sum({"action": (shop_r1(strict=strict, **tree), 1.0), "certainty": (certainty, alpha)}, name=name)
