"""The doctor looks by doing, and names the command that mends what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from worldeval import doctor
from worldeval.data import checkpoint
from worldeval.doctor import Finding, Status


def by_name(findings: list[Finding], name: str) -> list[Finding]:
    return [finding for finding in findings if finding.name == name]


def write_checkpoints(folder: Path) -> None:
    for part in ("autoencoder", "world-model", "judge", "policies/few"):
        weights = {"layer": np.arange(6, dtype=np.float32)}
        checkpoint.save(folder / part, kind="toy", config={}, tensors=weights)
    (folder / "suite").mkdir()
    for name in ("suite.json", "truth.parquet"):
        (folder / "suite" / name).write_text("{}")


def test_whole_checkpoints_are_counted(tmp_path: Path) -> None:
    write_checkpoints(tmp_path)
    (finding,) = doctor.checkpoints(tmp_path)
    assert finding.status is Status.OK
    assert finding.found.startswith("4 of 4 whole")


def test_a_damaged_shard_is_broken_and_named(tmp_path: Path) -> None:
    write_checkpoints(tmp_path)
    shard = tmp_path / "policies/few/weights-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    findings = doctor.checkpoints(tmp_path)
    (fault,) = by_name(findings, "checkpoint")
    assert fault.status is Status.BROKEN
    assert str(shard) in fault.found
    assert str(tmp_path / "policies/few") in fault.remedy
    assert not doctor.usable(findings)


def test_missing_checkpoints_are_optional(tmp_path: Path) -> None:
    findings = doctor.checkpoints(tmp_path)
    assert {fault.status for fault in findings} == {Status.OPTIONAL}
    assert len(by_name(findings, "checkpoint")) == 5
    assert all(fault.remedy for fault in by_name(findings, "checkpoint"))
    assert doctor.usable(findings)


def test_h264_is_really_encoded() -> None:
    assert doctor.h264().status is Status.OK


def test_a_missing_encoder_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(frames: int = 4) -> str:
        raise ValueError("Could not find codec 'h264'")

    monkeypatch.setattr(doctor, "encode_and_decode", fail)
    finding = doctor.h264()
    assert finding.status is Status.BROKEN
    assert "Could not find codec" in finding.found
    assert finding.remedy.startswith("pip install")


@pytest.mark.sim
def test_a_backend_that_does_not_exist_does_not_render() -> None:
    assert not doctor.renders("no-such-backend")


def test_without_a_backend_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mujoco")
    monkeypatch.setattr(doctor, "renders", lambda backend: False)
    finding = doctor.rendering()
    assert finding.status is Status.OPTIONAL
    assert "libegl1" in finding.remedy
    assert "libosmesa6" in finding.remedy


def test_little_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "memory_gib", lambda: (4.0, 1.5))
    finding = doctor.ram()
    assert finding.status is Status.OPTIONAL
    assert finding.found == "1.5 of 4.0 GiB free"


def test_the_core_packages_are_those_of_pyproject() -> None:
    assert doctor.packages().status is Status.OK


def test_both_forms_say_the_same() -> None:
    findings = [
        Finding(name="ram", status=Status.OK, found="8 GiB"),
        Finding(name="h264", status=Status.BROKEN, found="no encoder", remedy="install it"),
    ]
    report = json.loads(doctor.as_json(findings))
    assert report["usable"] is False
    assert report["findings"][1]["remedy"] == "install it"
    text = doctor.as_text(findings)
    assert text.splitlines()[0].startswith("ok  ram")
    assert "!!  h264" in text
    assert text.endswith("to mend: install it")
