"""The command line: finds the verb, reads its options, runs it, and turns errors into sentences.

What enters is ``argv``; what leaves is an exit code: 0 done, 1 looked and found something damaged,
2 something the user can mend (one line on stderr), 70 a fault of ours (one line, and a file to
send), 130 interrupted.

The table of verbs is literal and each verb is imported only when it is called, so that
``worldeval --help`` answers at once and imports neither torch nor tyro. A verb is a frozen
dataclass in ``worldeval/commands/`` whose fields are its options and whose ``run`` does the work.
"""

from __future__ import annotations

import difflib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from worldeval import fault, terminal
from worldeval.errors import WorldEvalError, ran_out_of_memory
from worldeval.terminal import shortened

# verb -> (module:class, one line for the help); a group's verbs have two words.
VERBS = {
    "demo": ("demo:Demo", "rank the shipped policies inside the shipped world (start here)"),
    "doctor": ("doctor:DoctorVerb", "what this machine can do, and what to install"),
    "robots": ("robots:Robots", "the robots known here: spaces, rates, views, bounds"),
    "record": ("record:Record", "record episodes in Meta-World, many workers at once"),
    "prepare": ("prepare:Prepare", "raw robot videos (DROID, LeRobot) to a store with latents"),
    "export lerobot": ("export:ExportLeRobot", "a store as a dataset for LeRobot, openpi, GR00T"),
    "export rerun": ("export:ExportRerun", "one rollout as a recording for the viewer of Rerun"),
    "import ctrl-world": ("import_model:ImportCtrlWorld", "the published Ctrl-World checkpoint"),
    "import svd": ("import_model:ImportSvd", "a new Ctrl-World from Stable Video Diffusion"),
    "train autoencoder": ("train_world_model:TrainAutoencoder", "frames to latents and back"),
    "train world-model": (
        "train_world_model:TrainWorldModel",
        "what is seen after an action chunk",
    ),
    "train ctrl-world": ("train_ctrl_world:TrainCtrlWorld", "fine-tune at full size, many GPUs"),
    "train adapter": ("train_adapter:TrainAdapter", "joint velocities to joint positions"),
    "train policy": ("train_policy:TrainPolicy", "clone behaviour from recorded episodes"),
    "train population": (
        "train_population:TrainPopulation",
        "make a population of truly different policies",
    ),
    "train judge": ("train_judge:TrainJudge", "tell success from failure"),
    "train progress": ("train_progress:TrainProgress", "how far along a task is, frame by frame"),
    "train margin": ("train_margin:TrainMargin", "how near each frame is to success"),
    "train path": ("train_path:TrainPath", "the same from the whole rollout and the hand's path"),
    "train trust": ("train_trust:TrainTrust", "when not to believe the imagination"),
    "merge": ("merge:Merge", "a fine-tuned policy with its base, by interpolation"),
    "evaluate": ("evaluate:Evaluate", "roll out, judge and rank policies, in one folder"),
    "rollout": ("rollout:Rollout", "run policies from a suite's start states in a world"),
    "resume": ("resume:Resume", "go on with a run that was interrupted"),
    "status": ("resume:StatusVerb", "how far a run is: rate, time left, errors, cost"),
    "gather": ("resume:Gather", "make the parts of several machines one run"),
    "probe": ("probe:Probe", "measure whether the imagined arm does what was commanded"),
    "carry-out": (
        "carry_out:CarryOut",
        "what imagined actions truly do, as labels of the rollouts",
    ),
    "replay": ("replay:Replay", "imagine recorded episodes again and measure the difference"),
    "judge": ("judge:JudgeVerb", "give a verdict on every rollout of a folder"),
    "calibrate": ("calibrate:Calibrate", "how often a judge is right, per policy and per task"),
    "trust": (
        "trust:Trust",
        "signals that imagination left reality (is out of distribution), and their use",
    ),
    "rank": ("rank:Rank", "rates with intervals, ranks, agreement with the truth"),
    "app": ("app:App", "look at evaluations in the browser, also while they run"),
    "serve-policy": ("serve:ServePolicy", "a policy for other tools, behind a port"),
    "serve-world": ("serve_world:ServeWorld", "a world for policies' own environments"),
    "reindex": ("app:Reindex", "rebuild the index of the app from the files"),
    "diagnose": ("diagnose:Diagnose", "how diverse a dataset is, and what a policy makes of it"),
    "synthesize": ("synthesize:Synthesize", "imagine varied rollouts, keep the good as a dataset"),
    "bench step": ("bench:BenchStep", "speed of one interaction at full size, against published"),
    "store verify": ("store:Verify", "name what is damaged in a store of episodes"),
    "store repair": ("store:RepairVerb", "rebuild a store's lost index from its recordings"),
    "store compact": ("store:Compact", "merge a store's many small files into few"),
}

INTRO = """\
usage: worldeval VERB [options]

Evaluate robot policies inside a world model, and check it against the truth.
"""

EXAMPLES = """
examples:
  worldeval demo                                        the whole circle, a few minutes
  worldeval demo --policy python:my_policy.py:MyPolicy  with your own policy in the ranking
  worldeval rollout --policy random --world imagination --out runs/mine
  worldeval judge runs/mine && worldeval rank runs/mine --out runs/mine-ranked

`worldeval VERB --help` explains the options of one verb. Exit codes: 0 done; 1 looked, and found
something damaged; 2 something to mend (one line says what); 70 a fault of worldeval (one line names
a file to send, WORLDEVAL_TRACEBACK=1 shows all); 130 interrupted: run the same command again to
continue.
"""

# What the operating system refuses for reasons of the user's: said in one line, without traceback.
_REMEDIES = {
    errno.ENOSPC: "free some space and run the same command again to continue",
    errno.EDQUOT: "free some space and run the same command again to continue",
    errno.EACCES: "choose a folder that you may write to, or change its permissions",
    errno.EPERM: "choose a folder that you may write to, or change its permissions",
    errno.EROFS: "choose a folder on a writable disk",
    errno.ENOENT: "check the spelling of the path",
    errno.ENOTDIR: "a file stands where a folder is expected; choose another path",
    errno.EISDIR: "a folder stands where a file is expected; choose another path",
    errno.EEXIST: "a file stands where a folder is expected; choose another path",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "links lead in a circle; choose another path",
    errno.EFBIG: "allow larger files (`ulimit -f`) and run the same command again to continue",
    errno.EMFILE: "allow more open files (`ulimit -n`) and run the same command again",
    errno.ENFILE: "close other programs and run the same command again",
    errno.EAGAIN: "allow more processes (`ulimit -u`), or take fewer --workers and --threads",
    errno.EIO: "check the disk, and run the same command again to continue",
    errno.ESTALE: "check the network disk, and run the same command again to continue",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        terminal.fill_descriptors()
        _end_on_request()
    with terminal.guarded_streams() as (out, _):
        code = _guarded(words, alone=argv is None)
        out.flush()
        if code == 0 and out.lost is not None and not isinstance(out.lost, BrokenPipeError):
            reason = getattr(out.lost, "strerror", None) or out.lost
            code = _refuse(
                f"the work is done, but standard output took no more text ({reason}); give it "
                "somewhere else to go and run the same command again to see it"
            )
    watching = sys.modules.get("worldeval.policies.watching")
    if argv is None and watching is not None:
        watching.end_despite_policies(code)
    return code


def _guarded(words: list[str], *, alone: bool) -> int:
    """Run the words; whatever is raised becomes a sentence and an exit code.

    alone: whether this process is ours, so that its signals are too.
    """
    try:
        return _dispatch(words)
    except KeyboardInterrupt as stop:  # the engine's says how much is kept
        if alone:  # a second Ctrl-C must not spoil the end of the program
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        said = str(stop) or "interrupted; run the same command again to continue"
        print(f"worldeval: {said}", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("WORLDEVAL_TRACEBACK"):
            traceback.print_exc()
        return _told(error, words)


def _end_on_request() -> None:
    """SIGTERM, as of a cluster whose time is up, ends as cleanly as Ctrl-C."""
    process = os.getpid()

    def end(number: int, frame: object) -> None:
        if os.getpid() != process:  # a child that was forked from this one
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)


def _told(error: Exception, words: list[str]) -> int:
    if isinstance(error, WorldEvalError):
        return _refuse(shortened(str(error), 4000))
    if ran_out_of_memory(error):
        return _refuse(
            f"memory ran out ({shortened(str(error), 200) or 'no more was given'}); take a "
            f"smaller --batch, fewer --chunks or smaller files; {fault.kept(error, words)}"
        )
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        place = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{place}{error.strerror}; {_REMEDIES[error.errno]}")
    _refuse(fault.sentence(error, words))
    return fault.EXIT_CODE


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(INTRO + _table("") + EXAMPLES, end="")
        return 0 if words else 2
    if words[0] == "--version":
        from worldeval import __version__

        print(f"worldeval {__version__}")
        return 0
    verb, rest = words[0], words[1:]
    if verb in _groups():
        if not rest or rest[0] in ("-h", "--help"):
            print(f"usage: worldeval {verb} WHAT [options]\n{_table(verb)}")
            print(f"`worldeval {verb} WHAT --help` explains its options.")
            return 0 if rest else 2
        verb, rest = f"{verb} {rest[0]}", rest[1:]
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean `worldeval {near[0]}`?" if near else "`worldeval --help` lists them"
        return _refuse(f"there is no verb {verb!r}; {hint}")
    return _run(verb, rest)


def _run(verb: str, options: list[str]) -> int:
    import tyro

    from worldeval.commands.ranges import check_once, check_values, check_words
    from worldeval.commands.renamed import as_today
    from worldeval.commands.saved_options import with_config

    check_words(options)
    options = as_today(verb, options)
    module, name = VERBS[verb][0].split(":")
    kind = getattr(import_module(f"worldeval.commands.{module}"), name)
    default, options = with_config(kind, options)
    # A flag has no --no- twin to clutter the help.
    settings = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitSubcommandPrefixes)
    try:
        # The help may be coloured; an error repeats words of the command line, codes and all.
        with terminal.colours(all(map(str.isprintable, options))):
            command: Any = tyro.cli(
                kind, prog=f"worldeval {verb}", args=options, default=default, config=settings
            )
    except SystemExit as stop:  # the usage was printed
        return stop.code if isinstance(stop.code, int) else 2
    check_once(command, options, f"worldeval {verb}")
    check_values(command)
    if verb.startswith("train ") and "RANK" in os.environ:
        from worldeval.learning.processes import SHARED, check_alone

        if verb not in SHARED:
            check_alone(f"`worldeval {verb}`")
    return int(command.run() or 0)


def _groups() -> set[str]:
    return {verb.split()[0] for verb in VERBS if " " in verb}


def _table(group: str) -> str:
    verbs = {v: text for v, (_, text) in VERBS.items() if v.startswith(group)}
    return "\n" + "".join(f"  {verb:<19}{text}\n" for verb, text in verbs.items())


def _refuse(sentence: str) -> int:
    print(f"worldeval: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
