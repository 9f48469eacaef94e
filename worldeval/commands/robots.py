"""``worldeval robots``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worldeval.robots import RobotSpec


@dataclass(frozen=True, kw_only=True)
class Robots:
    """List the robots that are known here: their spaces, rates, views and bounds.

    Those are the shipped profiles and the robots of other packages (entry point worldeval.robots).
    A robot of your own is a TOML file: write a known one with --out, correct it, and show it.

    For example:  worldeval robots --robot so101 --out my_robot.toml
    """

    robot: str | None = None
    """Show this one only: a TOML file, a name, or module:attr."""
    out: str | None = None
    """Write the robot of --robot to this TOML file, as a first one to correct."""

    def run(self) -> int:
        from worldeval import registry
        from worldeval.errors import ConfigError
        from worldeval.robots import NAMES, read_robot, write_robot

        if self.robot is None:
            if self.out is not None:
                raise ConfigError("--out is given without --robot; say which robot to write")
            names = sorted({*NAMES, *registry.entries("robots")})
            print("\n\n".join(described(read_robot(name)) for name in names))
            return 0
        robot = read_robot(self.robot)
        print(described(robot))
        if self.out is not None:
            write_robot(robot, self.out)
        return 0


def described(robot: RobotSpec) -> str:
    """A few lines on a robot: rates, views, what is commanded and what conditions the model."""
    height, width = robot.image_size
    lines = [
        robot.name,
        f"  actions  {robot.action_space}, {robot.control_mode}",
        f"  rates    {robot.control_hz:g} Hz control, {robot.frame_hz:g} frames/s, chunks of "
        f"{robot.chunk_steps} steps = {robot.frames_per_chunk} frames",
        f"  views    {', '.join(robot.views)} ({height}x{width})",
    ]
    for what, names, low, high in (
        ("action", robot.action_names, robot.action_low, robot.action_high),
        ("pose", robot.pose_names, robot.pose_low, robot.pose_high),
    ):
        for name, least, greatest in zip(names, low, high, strict=True):
            lines.append(f"  {what:8} {name:28} {least:10.4g} to {greatest:.4g}")
    grippers = ", ".join(robot.action_names[i] for i in robot.gripper_axes) or "none"
    lines.append(f"  gripper  {grippers} ({robot.gripper_sense.replace('_', ' ')})")
    return "\n".join(lines)
