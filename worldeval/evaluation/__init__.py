"""An evaluation: rollouts, verdicts, truth, trust and a ranking in one folder."""
