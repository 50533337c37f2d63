from .agreement import (
    CrossViewReward,
    MajorityVoteReward,
    PeerVoteReward,
)
from .answer_tags import (
    PatternFormat,
    answer_format,
    answer_present,
)
from .code_execution import CodeExecutionReward
from .exemplar import ExemplarComparisonReward, ExemplarStore
from .final_answer import NumericVerifier, regex_verifier, rule_verifier
from .follow_up import FollowUpLikelihoodReward
from .group_length import GroupLengthPenalty, hybrid_multi_aspect
from .hierarchical import HierarchicalReward, Node, exact_action, shop_r1
from .rationale_certainty import (
    RationaleCertainty,
    shop_r1_with_certainty,
)
from .reasoning_patterns import CalibratedReward, PhrasePatternReward
from .reference_verifier import ReferenceVerifierReward
from .relevance import (
    LengthIncentive,
    Relevance,
    TrigramDiversity,
    regularized_relevance,
)
from .resume import resume_decision, resume_repaired, resume_v2
from .resume_parameters import resume_v1
from .reward_detector import DetectabilityReward
from .segment import MomentScaled, SegmentReward
from .self_aligned import SelfAlignedReward
from .similarity import EmbeddingSimilarityReward, ReferenceMatch
from .symbolic import SymbolicVerifier
from .translation import (
    DirectionRouter,
    LanguageGate,
    LightweightTranslationReward,
    PureOutput,
    ThinkFormatGate,
    ThoughtReward,
    extrans_reward,
    gated_sum,
)

__all__ = [
    "CalibratedReward",
    "CodeExecutionReward",
    "CrossViewReward",
    "DetectabilityReward",
    "DirectionRouter",
    "EmbeddingSimilarityReward",
    "ExemplarComparisonReward",
    "ExemplarStore",
    "FollowUpLikelihoodReward",
    "GroupLengthPenalty",
    "HierarchicalReward",
    "LanguageGate",
    "LengthIncentive",
    "LightweightTranslationReward",
    "MajorityVoteReward",
    "MomentScaled",
    "Node",
    "NumericVerifier",
    "PatternFormat",
    "PeerVoteReward",
    "PhrasePatternReward",
    "PureOutput",
    "RationaleCertainty",
    "ReferenceMatch",
    "ReferenceVerifierReward",
    "Relevance",
    "SegmentReward",
    "SelfAlignedReward",
    "SymbolicVerifier",
    "ThinkFormatGate",
    "ThoughtReward",
    "TrigramDiversity",
    "answer_format",
    "answer_present",
    "exact_action",
    "extrans_reward",
    "gated_sum",
    "hybrid_multi_aspect",
    "regex_verifier",
    "regularized_relevance",
    "resume_decision",
    "resume_repaired",
    "resume_v1",
    "resume_v2",
    "rule_verifier",
    "shop_r1",
    "shop_r1_with_certainty",
]
