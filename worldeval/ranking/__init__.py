"""Statistics of policy evaluation: rates with intervals, comparisons, rankings, agreement.

numpy in, plain values or small frozen dataclasses out; scipy is loaded by what needs it.
"""

from worldeval.ranking.agreement import (
    Agreement,
    CellAgreement,
    TaskCounts,
    agree_in_cells,
    agreement,
    mmrv,
    order_kept,
)
from worldeval.ranking.bradley_terry import BradleyTerry, bradley_terry
from worldeval.ranking.comparisons import (
    PairedTest,
    TestResult,
    barnard_test,
    difference_interval,
    paired_test,
)
from worldeval.ranking.intervals import (
    Estimate,
    Interval,
    beta_interval,
    clopper_pearson_interval,
    wilson_interval,
)
from worldeval.ranking.judged_rates import JudgeCalibration, rogan_gladen
from worldeval.ranking.letters import adjust_p_values, compact_letters
from worldeval.ranking.peer_rates import Confusion, PeerErrors
from worldeval.ranking.planning import rollouts_needed
from worldeval.ranking.prediction_powered import (
    PredictionPowered,
    PredictionPoweredDifference,
    prediction_powered_difference,
    prediction_powered_mean,
)
from worldeval.ranking.sequential import SequentialComparison, e_values
from worldeval.ranking.sequential_best import Elimination, SequentialBest
from worldeval.ranking.sequential_order import PairDecision, SequentialOrder, difference_sequence

__all__ = [
    "Agreement",
    "BradleyTerry",
    "CellAgreement",
    "Confusion",
    "Elimination",
    "Estimate",
    "Interval",
    "JudgeCalibration",
    "PairDecision",
    "PairedTest",
    "PeerErrors",
    "PredictionPowered",
    "PredictionPoweredDifference",
    "SequentialBest",
    "SequentialComparison",
    "SequentialOrder",
    "TaskCounts",
    "TestResult",
    "adjust_p_values",
    "agree_in_cells",
    "agreement",
    "barnard_test",
    "beta_interval",
    "bradley_terry",
    "clopper_pearson_interval",
    "compact_letters",
    "difference_interval",
    "difference_sequence",
    "e_values",
    "mmrv",
    "order_kept",
    "paired_test",
    "prediction_powered_difference",
    "prediction_powered_mean",
    "rogan_gladen",
    "rollouts_needed",
    "wilson_interval",
]
