"""What this machine can do for worldeval, and what to install for what is missing.

Every check looks by doing: it renders a frame, encodes a video, hashes a checkpoint. What leaves is
a list of findings; a finding that is not ``OK`` carries the command that mends it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from worldeval import shipped
from worldeval.errors import CheckpointError

# MuJoCo's headless backends, in the order of preference, and the Debian packages of each.
GL_BACKENDS = {
    "egl": "apt-get install -y libegl1 libgl1-mesa-dri libglvnd0",
    "osmesa": "apt-get install -y libosmesa6",
}
NEEDED_RAM_GIB = 3.0
NEEDED_DISK_GIB = 2.0

# Rendering can end the process (a missing GL library aborts), hence its own interpreter.
_RENDER = """
import mujoco
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 2'/><geom size='.3' rgba='1 0 0 1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 64, 64) as renderer:
    renderer.update_scene(data)
    assert renderer.render()[..., 0].max() > 50, "the picture is black"
"""


class Status(StrEnum):
    """OK; OPTIONAL: missing, yet the core works; BROKEN: the core does not work."""

    OK = "ok"
    OPTIONAL = "optional"
    BROKEN = "broken"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found, and the command that mends it (empty where nothing is to mend)."""

    name: str
    status: Status
    found: str
    remedy: str = ""


def _ok(name: str, found: str, remedy: str = "") -> Finding:
    return Finding(name=name, status=Status.OK, found=found, remedy=remedy)


def _lacks(name: str, found: str, remedy: str = "") -> Finding:
    return Finding(name=name, status=Status.OPTIONAL, found=found, remedy=remedy)


def _broken(name: str, found: str, remedy: str) -> Finding:
    return Finding(name=name, status=Status.BROKEN, found=found, remedy=remedy)


def examine() -> list[Finding]:
    """Run every check; takes some seconds, most of them to import torch and to render."""
    checks: list[Callable[[], Finding]] = [
        *(python, packages, torch, gpu, attention, h264),
        *(simulator, rendering, app, ram, disk),
    ]
    return [check() for check in checks] + checkpoints(shipped.folder())


def usable(findings: Iterable[Finding]) -> bool:
    """Whether the core (imagine, judge, rank) works here."""
    return all(finding.status is not Status.BROKEN for finding in findings)


def as_json(findings: Iterable[Finding]) -> str:
    findings = list(findings)
    report = {"usable": usable(findings), "findings": [asdict(f) for f in findings]}
    return json.dumps(report, indent=1)


def as_text(findings: Iterable[Finding]) -> str:
    signs = {Status.OK: "ok", Status.OPTIONAL: "--", Status.BROKEN: "!!"}
    lines = []
    for finding in findings:
        lines.append(f"{signs[finding.status]}  {finding.name:<14}{finding.found}")
        if finding.remedy:
            lines.append(f"{'':18}to mend: {finding.remedy}")
    return "\n".join(lines)


def python() -> Finding:
    system, cores = f"{platform.system()} {platform.machine()}", os.cpu_count()
    return _ok("python", f"{platform.python_version()} on {system}, {cores} cores")


def packages() -> Finding:
    """Whether what ``pyproject.toml`` asks for without extras is installed, in these versions."""
    from packaging.requirements import Requirement

    remedy = "pip install -c constraints.txt -e ."
    try:
        asked = [Requirement(text) for text in importlib.metadata.requires("worldeval") or ()]
    except importlib.metadata.PackageNotFoundError:
        return _broken("packages", "worldeval itself is not installed", remedy)
    core = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    installed = {one.name.lower(): _version(one.name) for one in core}
    wrong = [
        f"{one} ({installed[one.name.lower()] or 'not installed'})"
        for one in core
        if not one.specifier.contains(installed[one.name.lower()] or "0", prereleases=True)
    ]
    if wrong:
        return _broken("packages", f"unmet: {', '.join(wrong)}", remedy)
    return _ok("packages", f"all {len(core)} of the core")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def torch() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a CUDA library that cannot be loaded
        remedy = "pip install --force-reinstall -c constraints.txt torch"
        return _broken("torch", f"cannot be imported: {error}", remedy)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return _ok("torch", f"{torch.__version__}, {device}, {torch.get_num_threads()} threads")


def gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return _lacks("gpu", "unknown without torch")
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        memory_gib = card.total_memory / 2**30
        return _ok("gpu", f"{torch.cuda.device_count()} x {card.name}, {memory_gib:.0f} GiB")
    if shutil.which("nvidia-smi") and torch.version.cuda is None:
        remedy = "pip uninstall -y torch && pip install -c constraints.txt torch"
        return _lacks("gpu", "there is one, but torch is a CPU build", remedy)
    return _lacks("gpu", "none that torch can use; the demo needs none")


def attention() -> Finding:
    """The fastest attention that truly runs here."""
    if importlib.util.find_spec("torch") is None:
        return _lacks("attention", "unknown without torch")
    import torch

    query = torch.zeros(1, 2, 4, 8)  # (batch, heads, tokens, width)
    torch.nn.functional.scaled_dot_product_attention(query, query, query)
    if not torch.cuda.is_available():
        return _ok("attention", "sdpa (CPU)")
    if importlib.util.find_spec("xformers") is None:
        remedy = "pip install -c constraints.txt -e '.[cuda]'"
        return _ok("attention", "sdpa (CUDA); xformers is not installed", remedy)
    try:
        from xformers.ops import memory_efficient_attention

        tokens = torch.zeros(1, 4, 2, 32, device="cuda", dtype=torch.float16)
        memory_efficient_attention(tokens, tokens, tokens)
    except (ImportError, OSError, RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        remedy = "pip install --force-reinstall -c constraints.txt torch xformers"
        return _ok("attention", f"sdpa (CUDA); xformers fails: {reason}", remedy)
    return _ok("attention", "xformers and sdpa (CUDA)")


def h264() -> Finding:
    """Encodes four frames and reads them back."""
    try:
        encoder = encode_and_decode()
    except ImportError as error:
        return _broken("h264", f"no PyAV: {error}", "pip install -c constraints.txt av")
    except (OSError, ValueError) as error:  # every error of FFmpeg is one of these
        remedy = "pip install --force-reinstall -c constraints.txt av"
        return _broken("h264", f"cannot encode: {error}", remedy)
    return _ok("h264", encoder)


def encode_and_decode(frames: int = 4) -> str:
    """Name of the H.264 encoder that wrote a video which could be read again."""
    import av
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("h264", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            for number in range(frames):
                picture = np.full((64, 64, 3), 60 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
            encoder = f"{stream.codec_context.name} (PyAV {av.__version__})"
        with av.open(str(path)) as container:
            read = sum(1 for _ in container.decode(video=0))
    if read != frames:
        raise ValueError(f"{frames} frames written, {read} read back")
    return encoder


def simulator() -> Finding:
    return _extra("simulator", ("metaworld", "mujoco"), "sim")


def app() -> Finding:
    return _extra("app", ("gradio",), "app")


def _extra(name: str, wanted: tuple[str, ...], extra: str) -> Finding:
    versions = {package: _version(package) for package in wanted}
    missing = [package for package, version in versions.items() if version is None]
    if missing:
        found = f"{', '.join(missing)} not installed; the demo needs none"
        return _lacks(name, found, f"pip install -c constraints.txt -e '.[{extra}]'")
    return _ok(name, ", ".join(f"{package} {version}" for package, version in versions.items()))


def rendering() -> Finding:
    """Which GL backends render the simulator's pictures without a screen."""
    if importlib.util.find_spec("mujoco") is None:
        return _lacks("rendering", "not tried without the simulator")
    working = [backend for backend in GL_BACKENDS if renders(backend)]
    if working:
        return _ok("rendering", f"{', '.join(working)} (MUJOCO_GL={working[0]})")
    remedy = " && ".join(GL_BACKENDS.values())
    return _lacks("rendering", f"none of {', '.join(GL_BACKENDS)} works", remedy)


def renders(backend: str) -> bool:
    """Whether MuJoCo draws a picture with ``MUJOCO_GL=backend``."""
    environment = dict(os.environ, MUJOCO_GL=backend, PYOPENGL_PLATFORM=backend)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _RENDER], env=environment, capture_output=True, timeout=60
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def ram() -> Finding:
    total_gib, free_gib = memory_gib()
    if total_gib is None or free_gib is None:
        return _ok("ram", "unknown on this system")
    found = f"{free_gib:.1f} of {total_gib:.1f} GiB free"
    if free_gib < NEEDED_RAM_GIB:
        return _lacks("ram", found, f"close other programs: the demo wants {NEEDED_RAM_GIB} GiB")
    return _ok("ram", found)


def memory_gib() -> tuple[float | None, float | None]:
    """(total, available) GiB of memory, None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        return kib["MemTotal"] / 2**20, kib["MemAvailable"] / 2**20
    except (OSError, KeyError, ValueError, IndexError):
        return None, None


def disk() -> Finding:
    usage = shutil.disk_usage(Path.cwd())
    free_gib = usage.free / 2**30
    found = f"{free_gib:.0f} of {usage.total / 2**30:.0f} GiB free in {Path.cwd()}"
    if free_gib < NEEDED_DISK_GIB:
        return _lacks("disk", found, f"free some space: runs want {NEEDED_DISK_GIB} GiB")
    return _ok("disk", found)


def checkpoints(folder: Path) -> list[Finding]:
    """One finding for the embedded world, and one for each part that is missing or damaged.

    A missing part is optional (one can train one's own); a damaged one would give wrong results.
    """
    from worldeval.data import checkpoint

    parts = [shipped.AUTOENCODER, shipped.WORLD_MODEL, shipped.JUDGE]
    candidates = sorted(folder.glob(f"{shipped.POLICIES}/*/config.json"))
    parts += [f"{shipped.POLICIES}/{config.parent.name}" for config in candidates]
    faults = [
        _lacks("checkpoint", f"{folder / part} is missing", _restore(folder / part))
        for part in (shipped.SUITE, shipped.TRUTH)
        if not (folder / part).is_file()
    ]
    whole = 0
    for part in parts:
        if not (folder / part).is_dir():
            remedy = _restore(folder / part)
            faults.append(_lacks("checkpoint", f"{folder / part} is missing", remedy))
            continue
        try:
            checkpoint.load(folder / part, kind=checkpoint.read_header(folder / part)["kind"])
            whole += 1
        except (CheckpointError, ImportError) as error:
            faults.append(_broken("checkpoint", str(error), _restore(folder / part)))
    found = f"{whole} of {len(parts)} whole in {folder}"
    return [_lacks("checkpoints", found) if faults else _ok("checkpoints", found), *faults]


def _restore(path: Path) -> str:
    return f"git checkout -- {path}"
