"""The probe's tables: physics beside each number, and a reason where there is none."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("worldeval.worlds.mujoco_backend", exc_type=ImportError)

from worldeval import cli
from worldeval.imagination.contacts import Contact, contact_rows, grip_rows
from worldeval.imagination.physics_probe import PhysicsProbe, Size, _short_jobs
from worldeval.imagination.probe import MotionProbe
from worldeval.reports.probe import probe_report

MOTION = MotionProbe(
    kind="human",
    frames=40,
    gain={"x": 0.5, "gripper": None},
    drift=(0.25, 0.5),
    physics={"x": 0.95},
)


def contact(kind: str, true: float, imagined: float) -> Contact:
    return Contact(
        task="push",
        kind=kind,
        true_m=true,
        imagined_m=imagined,
        sharp_m=true,
        blurred_m=true,
        psnr_db=21.0,
    )


def probe() -> PhysicsProbe:
    contacts = [contact("expert", 0.1, 0.1), contact("above", 0.0, 0.08)]
    return PhysicsProbe(
        motions=(MOTION,),
        by_kind=tuple(contact_rows(contacts, "kind")),
        by_task=tuple(contact_rows(contacts, "task")),
        grips=tuple(grip_rows([("window", "own", True, True), ("window", "open", False, True)])),
        returned_db=19.0,
        ceiling_db=24.8,
        long_db=((1, 23.7, 20.4), (40, 20.5, 17.8)),
    )


def test_every_number_has_physics_beside_it():
    text = probe_report([], probe())
    assert "| human | 40 | 0.50 (0.95) | – | 0.25 | 0.50 | 0.50 |" in text
    assert "| above | 100 % [21, 100] of 1 | – | 0 % [0, 79] of 1 | 0 % [0, 79] of 1 |" in text
    assert "| window | open | 1 | 100 % (100 %) | 0 % (100 %) | -100 |" in text
    assert "| wrist view, out and back | 19.0 | 24.8 (true frames through" in text
    assert "| chunk 40 | 20.5 | 17.8 (repeated first frame) |" in text
    content = probe().to_dict()
    assert json.loads(json.dumps(content, allow_nan=False))["grippers"][0]["difference"] == -1


def test_without_physics_the_reason_is_told():
    text = probe_report([MOTION], None, "the world model is of another robot")
    assert "## Motions of the recordings" in text
    assert "not measured: the world model is of another robot." in text


def test_all_kinds_and_tasks_are_carried_out_and_more_starts_keep_the_first_ones():
    few, more = (_short_jobs(Size(starts=n, grips=n), 10) for n in (1, 2))
    assert len({job.key for job in few}) == len(few) and set(few) < set(more)
    assert {"expert", "policy", "human", "above", "grip-late", "memory"} <= {j.kind for j in few}


def test_a_probe_of_nothing_is_refused(capsys: pytest.CaptureFixture[str], tmp_path):
    assert cli.main(["probe", "--no-physics", "--out", str(tmp_path / "p")]) == 2
    assert "give --store, or leave --no-physics away" in capsys.readouterr().err
