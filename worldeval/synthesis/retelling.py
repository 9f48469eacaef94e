"""Other words for what was done: an episode teaches any instruction that asks for the same.

Enters: ``Tables`` of imagined rollouts. Leaves: the same with the words under which each is to be
learned. The policy was told something that it understands, and solved the task; a way of asking
that it does not understand means the same, so the rollout is an example of that too (instruction
augmentation: Xiao et al. 2022, DIAL, arXiv 2211.11736).
"""

from __future__ import annotations

from dataclasses import replace

from worldeval.synthesis.planning import generator
from worldeval.synthesis.tables import ASKED, INSTRUCTION, KEY, TASK, Tables
from worldeval.synthesis.wording import reworded

REWORDED = 0.5
"""Share of the rollouts whose drawn words are reworded by the grammar."""


def retold(tables: Tables) -> Tables:
    """``tables`` with words drawn for each rollout: one of the instructions with which the suite
    asks for its task, or such a one reworded. The draw depends on the rollout's key and on the
    suite's instructions alone.
    """
    rows = tables.rollouts
    asked = rows[ASKED if ASKED in rows.columns else INSTRUCTION].astype(str)
    known = {task: sorted(set(words)) for task, words in asked.groupby(rows[TASK])}
    words = []
    for key, task in zip(rows[KEY].astype(str), rows[TASK], strict=True):
        rng = generator(0, key, 0)
        drawn = known[task][rng.integers(len(known[task]))]
        words.append(reworded(drawn, known[task], rng) if rng.random() < REWORDED else drawn)
    return replace(tables, rollouts=rows.assign(**{INSTRUCTION: words}))
