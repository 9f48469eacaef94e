"""How far rolling out is, for people who wait: in a terminal, in a notebook, and in a log.

Enters: what is to be made, and how many frames and rollouts came. Leaves: one line that is renewed
in place::

    |###      | full: 45 of 240 rollouts, 38 frames/s, 4 min left, next no-wrist
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from tqdm import tqdm

from worldeval.terminal import bar_options, printable

FORMAT = "|{bar:12}| {desc}"


class Progress:
    """Rollouts done of all, how fast, how long still, and what comes next.

    total: rollouts that there are to be, those of before counted. at_most: it may end with fewer.
    clock: seconds since whenever.
    on_change: told of every change.
    """

    def __init__(
        self,
        total: int,
        *,
        at_most: bool = False,
        shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[Progress], None] | None = None,
    ) -> None:
        self.total, self.done = total, 0
        self.next = ""
        self._on_change = on_change
        self._at_most, self._clock = at_most, clock
        self._name, self._end = "", 0
        self._each = 1  # frames of a rollout
        self._made = 0.0  # rollouts made since the beginning, parts of them too
        self._frames = 0
        self._part = 0.0  # of the rollouts that are under way
        self._began_s: float | None = None
        options = bar_options() if shown else {"disable": True}
        self._bar = tqdm(total=total, bar_format=FORMAT, dynamic_ncols=True, leave=False, **options)

    def begin(self, name: str, *, rollouts: int, held: int, frames: int) -> None:
        """A policy begins, of whose rollouts so many are held already; frames: of one of them."""
        self._name, self._end, self._each = name, self.done + rollouts, max(frames, 1)
        self.done += held
        self._began_s = self._clock() if self._began_s is None else self._began_s
        self._show()

    def advance(self, frames: int) -> None:
        """So many frames came, of whichever rollouts."""
        self._frames += frames
        self._part += frames / self._each
        self._show(at_once=False)

    def finish(self, rollouts: int) -> None:
        """So many rollouts ended, also if they took fewer frames than they might."""
        self.done += rollouts
        self._made += rollouts
        self._part = 0.0
        self._show()

    def end(self) -> None:
        """The policy's part is over; what it did not make will not come."""
        if not self._at_most:
            self.total -= max(0, self._end - self.done)
        self._part = 0.0
        self._show()

    def say(self, text: str) -> None:
        """Print a line of its own above the one that is renewed."""
        if not self._bar.disable:
            self._bar.clear()
        print(text, flush=True)
        if not self._bar.disable:
            self._bar.refresh()

    def close(self) -> None:
        self._bar.close()

    @property
    def left_s(self) -> float | None:
        """Seconds until all is done, at the speed so far; None while nothing was made."""
        made = self._made + self._part
        if self._began_s is None or made <= 0:
            return None
        seconds = self._clock() - self._began_s
        return seconds / made * max(0.0, self.total - self.done - self._part)

    @property
    def speed(self) -> str:
        """Frames per second; where that is below one, rollouts an hour. Empty while unknown."""
        seconds = 0.0 if self._began_s is None else self._clock() - self._began_s
        if seconds <= 0 or not self._frames:
            return ""
        frames = self._frames / seconds
        if frames >= 1:
            return f"{frames:.3g} frames/s"
        return f"{3600 * (self._made + self._part) / seconds:.3g} rollouts/h"

    @property
    def counted(self) -> str:
        return f"{self.done} of {'at most ' if self._at_most else ''}{self.total} rollouts"

    def __str__(self) -> str:
        """How far it is, without the name of the policy that is at work."""
        left = self.left_s if self.done < self.total else None
        soon = "" if left is None else f"{duration(left)} left"
        then = f"next {printable(self.next)}" if self.next else ""
        return ", ".join(filter(None, (self.counted, self.speed, soon, then)))

    @property
    def name(self) -> str:
        """The policy that is at work."""
        return self._name

    @property
    def made(self) -> int:
        """Rollouts made since the beginning."""
        return int(self._made)

    def _show(self, *, at_once: bool = True) -> None:
        if self._on_change is not None:
            self._on_change(self)
        if self._bar.disable:
            return
        name = printable(self._name)
        self._bar.total = self.total
        self._bar.set_description_str(f"{name}: {self}" if name else str(self), refresh=False)
        self._bar.update(min(self.done + self._part, self.total) - self._bar.n)
        if at_once:
            self._bar.refresh()


def duration(seconds: float) -> str:
    """As a person says it: 40 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def percentages(amounts: Mapping[str, float]) -> dict[str, int]:
    """Whole percentages of the amounts' sum, which add up to 100: those nearest to the next whole
    one are rounded up (the method of the largest remainder)."""
    whole = sum(amounts.values())
    exact = {name: 100 * amount / whole if whole > 0 else 0.0 for name, amount in amounts.items()}
    shares = {name: int(share) for name, share in exact.items()}
    missing = 100 - sum(shares.values()) if whole > 0 else 0
    for name in sorted(exact, key=lambda name: shares[name] - exact[name])[:missing]:
        shares[name] += 1
    return shares
