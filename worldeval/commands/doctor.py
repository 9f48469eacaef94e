"""``worldeval doctor``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DoctorVerb:
    """Print what this machine can do, and the command that installs what is missing.

    Every line was tried: a frame rendered, a video encoded, each shipped checkpoint hashed.
    "ok" works, "--" is optional and missing, "!!" is needed and broken (exit code 1).

    For example:  worldeval doctor --json
    """

    json: bool = False
    """Print JSON for programs instead of text."""

    def run(self) -> int:
        from worldeval import doctor

        findings = doctor.examine()
        print(doctor.as_json(findings) if self.json else doctor.as_text(findings))
        return 0 if doctor.usable(findings) else 1
