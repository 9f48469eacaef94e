"""How often a judge is right: ``assessing.assess`` finds it, ``Assessment`` keeps and uses it.

truth.py joins verdicts with what was true; error_rates.py, shrinkage.py, thresholds.py and
raters.py hold the statistics; label_tables.py reads people's labels; text.py, page.py and plots.py
show it.
"""

from worldeval.judge_calibration.assessment import Assessment
from worldeval.judge_calibration.error_rates import ErrorRates, Reliability

__all__ = ["Assessment", "ErrorRates", "Reliability"]
