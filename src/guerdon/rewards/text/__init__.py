"""Rewards that look at text: ``from guerdon.rewards.text import rule_verifier, shop_r1, CrossViewReward``.

Each is an object that goes into ``trl.GRPOTrainer(reward_funcs=[...])`` as it is; `guerdon.core.adapters` carries it to
verl, OpenRLHF and ms-swift. ``__init__.pyi`` lists them. A name is loaded when it is asked for: some need torch, and a
regular expression does not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
