"""A leaderboard: ``build_leaderboard`` makes a ``Leaderboard`` of verdict tables."""

from worldeval.ranking.leaderboard.build import build_leaderboard
from worldeval.ranking.leaderboard.leaderboard import Leaderboard
from worldeval.ranking.leaderboard.policy_row import PolicyRow, TaskRow

__all__ = ["Leaderboard", "PolicyRow", "TaskRow", "build_leaderboard"]
