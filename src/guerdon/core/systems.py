"""The published systems that guerdon implements, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class System:
    """A published system and how it is used here.

    slug:    its name on the command line.
    title, source:  the paper's title, and where it is published.
    how:     "run", "bench", "compare", "audit", or the name of its reward.
    claim:   its central claim in one sentence.
    docs:    its documentation page, relative to the repository.
    target:  "module:attribute" of its recipe, benchmark or reward; "" where ``how`` alone says it.
    """

    slug: str
    title: str
    source: str
    how: str
    claim: str
    docs: str
    target: str = ""

    @property
    def module(self) -> str:
        """Name of its modules in recipes/ and claims/: the slug with an underscore for all that no name may hold."""
        return re.sub(r"\W", "_", self.slug)


# Targets are strings: this lies below everything that it lists, and listing must import none of it.
# A run system without a target has the recipe that its slug names.
SYSTEMS: tuple[System, ...] = (
    System(
        slug="realgen",
        title="RealGen: Photorealistic Text-to-Image Generation via Detector-Guided Rewards",
        source="arXiv 2512.00473",
        how="run",
        claim="Rewards by detectors of generated images make a generator's pictures look real to detectors that took "
        "no part in the training, where rewards for preference do not.",
        docs="docs/systems.md#realgen",
    ),
    System(
        slug="flow-grpo",
        title="Flow-GRPO: Training Flow Matching Models via Online RL",
        source="arXiv 2505.05470",
        how="run",
        claim="A flow model sampled by an SDE with the same marginals as its ODE can be trained by group-relative "
        "policy gradients, in few denoising steps, and keeps the gain when it is sampled in many.",
        docs="docs/systems.md#flow-grpo",
    ),
    System(
        slug="adv-grpo",
        title="The Image as Its Own Reward: Reinforcement Learning with Adversarial Reward for Image Generation",
        source="arXiv 2511.20256",
        how="run",
        claim="A reward model that keeps learning to tell reference images from the generator's own cannot be hacked "
        "as a frozen one is, and needs no KL term to hold the generator near the references.",
        docs="docs/systems.md#adv-grpo",
    ),
    System(
        slug="skywork-reward-v2",
        title="Skywork-Reward-V2: Scaling Preference Data Curation via Human-AI Synergy",
        source="arXiv 2507.01352",
        how="run",
        claim="A plain Bradley-Terry reward model gains from many more preference pairs only if they are curated: "
        "pairs kept because a gold model and a second judge agree raise its accuracy, as many uncurated ones do not.",
        docs="docs/systems.md#skywork-reward-v2",
    ),
    System(
        slug="secrets-rlhf-2",
        title="Secrets of RLHF in Large Language Models Part II: Reward Modeling",
        source="arXiv 2401.06080",
        how="run",
        claim="The vote of an ensemble measures each preference pair's strength, and flipping, softening or margins by "
        "it make the reward model trained on noisy pairs more accurate, which random flips do not; MetaRM's step tells "
        "apart answers of a policy that has moved on.",
        docs="docs/systems.md#secrets-rlhf-2",
    ),
    System(
        slug="reward-topology-tree",
        title="Reward Generalization in RLHF: A Topological Perspective",
        source="arXiv 2402.10184",
        how="run",
        claim="Pairs of answers that share prefixes (a tree) train a better reward model than pairs of independent "
        "answers at equal annotated tokens, where comparing what differs is what makes annotation noisy.",
        docs="docs/systems.md#reward-topology-tree",
    ),
    System(
        slug="contrast-instructions",
        title="The Trickle-down Impact of Reward (In-)consistency on RLHF",
        source="arXiv 2309.16155",
        how="run",
        claim="A reward model of high preference accuracy can fail to tell which of two similar instructions an answer "
        "belongs to; training on crossed pairs mends it.",
        docs="docs/systems.md#contrast-instructions",
    ),
    System(
        slug="polar",
        title="Pre-Trained Policy Discriminators are General Reward Models",
        source="arXiv 2507.05197",
        how="run",
        claim="A reward model pre-trained without labels to tell whether two trajectories come from one policy needs "
        "few ranked triples to judge candidates against a reference, more accurately than without pre-training.",
        docs="docs/systems.md#polar",
    ),
    System(
        slug="basereward",
        title="BaseReward: A Strong Baseline for Multimodal Reward Model",
        source="arXiv 2509.16127",
        how="run",
        claim="A two-layer SiLU reward head beats a linear one, and more layers add nothing, where quality is not a "
        "linear function of the features.",
        docs="docs/systems.md#basereward",
    ),
    System(
        slug="ixc-2.5-reward",
        title="InternLM-XComposer2.5-Reward: A Simple Yet Effective Multi-Modal Reward Model",
        source="arXiv 2501.12368",
        how="run",
        claim="Dropping pairs whose chosen answer is much longer than the rejected one takes the length bias of the "
        "labels out of the reward model, where dropping as many at random does not.",
        docs="docs/systems.md#ixc-2.5-reward",
    ),
    System(
        slug="rewardbench-2",
        title="RewardBench 2: Advancing Reward Model Evaluation",
        source="arXiv 2506.01937",
        how="bench",
        claim="Picking the one right answer of four is harder than preferring the right one of two and says more about "
        "how good best-of-n sampling with a reward model will be; ties between right answers show a miscalibration "
        "that accuracy misses.",
        docs="docs/systems.md#rewardbench-2",
    ),
    System(
        slug="rewardmath",
        title="Evaluating Robustness of Reward Models for Mathematical Reasoning",
        source="arXiv 2410.01729",
        how="bench",
        claim="One right solution against nine wrong ones ranks reward models as best-of-n sampling does, where one "
        "pair a problem can be won by a shortcut of style.",
        docs="docs/systems.md#rewardmath",
    ),
    System(
        slug="mrmbench",
        title="Probing Preference Representations: A Multi-Dimensional Evaluation and Analysis Method for Reward "
        "Models",
        source="arXiv 2511.12464",
        how="bench",
        claim="A linear probe of a reward model's frozen representation tells which dimensions of preference it "
        "encodes, and distances to the probed centroids tell which of its rewards to trust.",
        docs="docs/systems.md#mrmbench",
    ),
    System(
        slug="remodetect",
        title="ReMoDetect: Reward Models Recognize Aligned LLM's Generations",
        source="arXiv 2405.17382",
        how="run",
        claim="Aligned models write texts that a reward model scores above human ones, so a reward model detects them; "
        "ordered training with mixed texts and replay sharpens it.",
        docs="docs/systems.md#remodetect",
    ),
    System(
        slug="lvis-ap",
        title="Evaluating Large-Vocabulary Object Detectors: The Devil is in the Details",
        source="arXiv 2102.01066",
        how="bench",
        claim="With a cap on detections an image, average precision rises when one category's scores are raised; a cap "
        "a category cannot be gamed, and pooled AP rewards scores that are calibrated across categories.",
        docs="docs/systems.md#lvis-ap",
    ),
    System(
        slug="starc",
        title="STARC: A General Framework For Quantifying Differences Between Reward Functions",
        source="arXiv 2309.15257",
        how="compare",
        claim="A STARC distance between two reward functions bounds the worst-case regret of optimising one for the "
        "other from above and from below, which EPIC and DARD do not.",
        docs="docs/systems.md#starc",
    ),
    System(
        slug="one-token-to-fool",
        title="One Token to Fool LLM-as-a-Judge",
        source="arXiv 2507.08794",
        how="run",
        claim="Judges that compare with a reference accept answers without content; training on truncated first "
        "sentences labelled NO removes these false positives at no cost in accuracy.",
        docs="docs/systems.md#one-token-to-fool",
    ),
    System(
        slug="reward-clip-delta",
        title="On Designing Effective RL Reward at Training Time for LLM Reasoning",
        source="arXiv 2410.15115",
        how="run",
        claim="Step scores of a process reward model, added to the success reward as they are, are hacked by repeating "
        "plausible steps; clipped and differenced they are safe, and help where success is rare.",
        docs="docs/systems.md#reward-clip-delta",
    ),
    System(
        slug="noisy-rewards-rpr",
        title="The Climb Carves Wisdom Deeper Than the Summit: On the Noisy Rewards in Learning to Reason",
        source="arXiv 2505.22653",
        how="run",
        claim="Reasoning is learnt almost as well when the rewards of up to 40% of the questions are turned round, and "
        "a reward for reasoning phrases makes up for a noisy reward model's false negatives.",
        docs="docs/systems.md#noisy-rewards-rpr",
    ),
    System(
        slug="self-aligned-reward",
        title="Self-Aligned Reward: Towards Effective and Efficient Reasoners",
        source="arXiv 2509.05489",
        how="run",
        claim="A reward for answers that the question makes likelier, by the policy itself, added to a verifier's, "
        "shortens answers at equal accuracy, where length penalties drop what was needed.",
        docs="docs/systems.md#self-aligned-reward",
    ),
    System(
        slug="co-reward",
        title="Co-Reward: Self-supervised Reinforcement Learning for LLM Reasoning via Contrastive Agreement",
        source="arXiv 2508.00410",
        how="run",
        claim="Labels elected by the answers to another wording of a question train a policy further than a majority "
        "vote over its own, without any solution.",
        docs="docs/systems.md#co-reward",
    ),
    System(
        slug="fine-grained-rlhf",
        title="Fine-Grained Human Feedback Gives Better Rewards for Language Model Training",
        source="arXiv 2306.01693",
        how="run",
        claim="A reward behind every segment, one model an error type, trains better policies than one score a text, "
        "and the weights set the behaviour.",
        docs="docs/systems.md#fine-grained-rlhf",
    ),
    System(
        slug="hybrid-multi-aspect",
        title="Beyond Monolithic Rewards: A Hybrid and Multi-Aspect Reward Optimization for MLLM Alignment",
        source="arXiv 2510.05283",
        how="run",
        claim="Rewarding checkable prompts by rules and open ones by a model beats either alone, and a length penalty "
        "tied to the group's right answers shortens them at equal accuracy.",
        docs="docs/systems.md#hybrid-multi-aspect",
    ),
    System(
        slug="regularized-relevance-reward",
        title="Preference-free Alignment Learning with Regularized Relevance Reward",
        source="arXiv 2402.03469",
        how="run",
        claim="Relevance alone is hacked by copying, times length by repeating; times diversity as well it makes long, "
        "diverse, relevant answers, and closed queries need the reference instead.",
        docs="docs/systems.md#regularized-relevance-reward",
    ),
    System(
        slug="follow-up-likelihood",
        title="Aligning Language Models Using Follow-up Likelihood as Reward Signal",
        source="arXiv 2409.13948",
        how="run",
        claim="How likely a language model finds praise or complaint as the next turn tells which of two responses is "
        "preferred, without any preference data.",
        docs="docs/systems.md#follow-up-likelihood",
    ),
    System(
        slug="shop-r1",
        title="Shop-R1: Rewarding LLMs to Simulate Human Behavior in Online Shopping via Reinforcement Learning",
        source="arXiv 2507.17842",
        how="run",
        claim="Rewarded for exact actions alone a simulated shopper drifts to the easiest action, terminate; "
        "hierarchical credit, with long texts counting more, keeps all kinds of action alive.",
        docs="docs/systems.md#shop-r1",
    ),
    System(
        slug="resume-grpo",
        title="A Mathematical Framework for Custom Reward Functions in Job Application Evaluation using Reinforcement "
        "Learning",
        source="arXiv 2511.16073",
        how="run",
        claim="Strong penalties for wrong decisions make a policy reject nearly everybody, small ones keep the "
        "balance.",
        docs="docs/systems.md#resume-grpo",
    ),
    System(
        slug="extrans",
        title="ExTrans: Multilingual Deep Reasoning Translation via Exemplar-Enhanced Reinforcement Learning",
        source="arXiv 2505.12996",
        how="run",
        claim="Comparing a translation with a strong exemplar separates good translations where an absolute score "
        "saturates, and gated by form and language it cannot be paid for anything else.",
        docs="docs/systems.md#extrans",
    ),
)

# Recipes that are no one paper's: `guerdon run` knows them, the list of systems does not.
GENERAL: tuple[System, ...] = (
    System(
        slug="language",
        title="A language model trained on any rewards",
        source="",
        how="run",
        claim="",
        docs="docs/language.md",
    ),
)
