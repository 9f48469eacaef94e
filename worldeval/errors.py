"""The exceptions that worldeval raises at its public borders.

::

    WorldEvalError
      + ConfigError            a setting has a value that cannot be used
      + DataError              an episode, a dataset or a video cannot be used
      |   + StoreError         an episode store is damaged or unwritable
      |   + MismatchError      two sides disagree on views, rate, pose, units, size
      + CheckpointError        a checkpoint is missing, damaged or of another kind
      + PolicyError            a policy answered with something unusable
      |   + PolicyAwayError    nobody answers where a policy is served, for as long as was waited
      + PolicyGoneError        a policy is gone for good: the run ends
      + JudgeError             a judge could not be asked for its verdict
      + WorldError             a world (simulator or imagination) could not step
      |   + StartStateError    a start state does not exist in this world
      + MissingDependencyError an optional package is not installed

Every message says what was given, what was expected, and what to do. The command line prints the
message alone, as one sentence, and exits with 2; a traceback always means a bug of ours.
"""

from __future__ import annotations


class WorldEvalError(Exception):
    """Base of all errors that a user of worldeval is expected to read."""


class ConfigError(WorldEvalError, ValueError):
    """A setting has a value that cannot be used."""


class DataError(WorldEvalError):
    """An episode, a dataset or a video cannot be used."""


class StoreError(DataError):
    """An episode store is damaged or cannot be written."""


class MismatchError(DataError, ValueError):
    """Two sides disagree on views, rate, pose, units or size."""


class CheckpointError(WorldEvalError):
    """A checkpoint is missing, damaged or of another kind."""


class PolicyError(WorldEvalError):
    """A policy answered with something unusable."""


class PolicyAwayError(PolicyError):
    """Nobody answers where a policy is served: no fault of the rollout that was under way."""


class PolicyGoneError(WorldEvalError):
    """A policy is gone for good (its server stays away, or is another by now): the run ends."""


class JudgeError(WorldEvalError):
    """A judge could not be asked for its verdict; that it gave none is no verdict."""


class WorldError(WorldEvalError):
    """A world could not be reset or stepped."""


class StartStateError(WorldError, KeyError):
    """A start state does not exist in this world."""

    def __str__(self) -> str:  # KeyError would print the repr of its argument
        return str(self.args[0]) if self.args else ""


class MissingDependencyError(WorldEvalError, ImportError):
    """An optional package is not installed."""


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, for the error or what caused it; torch and OpenCV have no type of
    their own for it."""
    told = ("can't allocate memory", "not enough memory", "Insufficient memory", "std::bad_alloc")
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if isinstance(error, Exception) and any(words in str(error) for words in told):
            return True
        error = error.__cause__
    return False
