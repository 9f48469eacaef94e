"""Pixels at the borders: the only place that knows about 255, PNG and H.264.

What enters and leaves models is float32 (..., C, H, W) in [-1, 1]; what enters and leaves worlds,
policies, judges and files is uint8 (..., H, W, C) RGB (legend in ``worldeval/types.py``).

mp4 files are H.264 4:2:0 without B-frames and with the index in front, so that any browser plays
them, decode order is display order, and ``join_mp4`` can string several together packet by packet
without decoding. 4:2:0 halves the resolution of colour: at 64 px that is visible
(``benchmarks/chroma.py``), so frames that a model learns from are better kept as PNG.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from worldeval.data.files import regular_file
from worldeval.errors import ConfigError, DataError

MP4_TICKS_PER_FRAME = 512
"""Ticks of the mp4 clock in one frame, fixed so that joined files share one clock."""


def to_model(frames: np.ndarray) -> np.ndarray:
    """uint8 frames (..., H, W, C) -> float32 (..., C, H, W) in [-1, 1]."""
    if frames.dtype != np.uint8:
        raise DataError(f"frames have dtype {frames.dtype}, expected uint8 RGB in 0..255")
    video = np.ascontiguousarray(np.moveaxis(frames, -1, -3), dtype=np.float32)
    video /= 127.5
    video -= 1.0
    return video


def to_frames(video: np.ndarray) -> np.ndarray:
    """float (..., C, H, W) in [-1, 1] -> uint8 (..., H, W, C), rounded and clipped."""
    if not np.isfinite(video).all():
        raise DataError("a video with NaN or infinity cannot become frames; the model diverged")
    scaled = np.clip(np.rint((np.asarray(video, np.float32) + 1.0) * 127.5), 0, 255)
    return np.ascontiguousarray(np.moveaxis(scaled, -3, -1).astype(np.uint8))


def tile_views(frames: np.ndarray) -> np.ndarray:
    """(T, V, H, W, C) -> (T, H, V*W, C), the views side by side in their order."""
    t, v, h, w, c = frames.shape
    return frames.transpose(0, 2, 1, 3, 4).reshape(t, h, v * w, c)


def encode_png(frame: np.ndarray, level: int = 1) -> bytes:
    """(H, W, 3) uint8 RGB -> PNG bytes. Level 1 is four times faster than 6 and 5 % larger."""
    bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    written, encoded = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, level])
    if not written:
        raise DataError(f"a frame of shape {frame.shape} cannot be written as PNG")
    return encoded.tobytes()


def encode_jpeg(frame: np.ndarray, quality: int = 90) -> bytes:
    """(H, W, 3) uint8 RGB -> JPEG bytes, quality 1..100; for eyes and models, never for stores."""
    bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    written, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not written:
        raise DataError(f"a frame of shape {frame.shape} cannot be written as JPEG")
    return encoded.tobytes()


def decode_png(data: bytes | memoryview | np.ndarray) -> np.ndarray:
    """PNG bytes -> (H, W, 3) uint8 RGB."""
    raw = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    bgr = cv2.imdecode(raw, cv2.IMREAD_COLOR) if raw.size else None
    if bgr is None:
        raise DataError(f"{raw.size} bytes are not a readable PNG image")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


SMALL = 48
"""Up to so many pixels a side (three macroblocks) x264's macroblock tree reads what it has not
written: one film of some hundreds is then coded otherwise. Seen up to 48, never from 50 on."""


def write_mp4(
    path: str | Path, frames: np.ndarray, fps: float, *, crf: int = 18, keyframe_every: int = 4
) -> None:
    """Write frames (T, H, W, 3) as H.264 that any browser plays.

    crf: 0..51, lower is better and larger; 18 shows no artefacts beyond 4:2:0. 0 codes the 4:2:0
        picture without loss, in a profile that browsers do not play.
    keyframe_every: frames between key frames; small, so that training may jump into the middle.
    Raises OSError where the file cannot be written (a full disk), as ``open`` does.
    """
    import av

    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise DataError(
            f"frames are {frames.dtype} {frames.shape}, expected uint8 (T, H, W, 3) with T >= 1"
        )
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise DataError(
            f"frames are {height}x{width} px; H.264 4:2:0 needs even sizes, pad or crop by one"
        )
    if not 0 <= crf <= 51:
        raise ConfigError(f"crf is {crf}, expected 0 (best) to 51")
    rate = _rate(fps)
    options = {"crf": str(crf), "preset": "veryfast", "bf": "0", "threads": "1"}
    if min(height, width) <= SMALL:
        options["x264-params"] = "mbtree=0"
    if crf > 0:  # lossless coding is outside of the high profile
        options["profile"] = "high"
    with (
        av_errors(path, "written"),
        av.open(str(path), "w", format="mp4", options=_muxer_options(rate)) as container,
    ):
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size = keyframe_every
        # Tagged, because players guess untagged colours by picture size.
        stream.codec_context.colorspace = av.video.reformatter.Colorspace.ITU601
        stream.codec_context.color_range = av.video.reformatter.ColorRange.MPEG
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = converted(
                frame,
                format="yuv420p",
                dst_colorspace=av.video.reformatter.Colorspace.ITU601,
                dst_color_range=av.video.reformatter.ColorRange.MPEG,
            )
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def converted(frame: Any, **form: Any) -> Any:
    """A frame of PyAV in another format: pixels, colour space, colour range."""
    if _takes_threads():
        form["threads"] = 1  # to begin more for each small frame takes ten times as long
    return frame.reformat(**form)


@cache
def _takes_threads() -> bool:
    """PyAV 15, which LeRobot asks for, knows one thread only, and no word for it."""
    import av

    try:
        av.VideoFrame(2, 2, "rgb24").reformat(format="yuv420p", threads=1)
    except TypeError:
        return False
    return True


def read_mp4(
    path: str | Path,
    *,
    start_s: float = 0.0,
    count: int | None = None,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 RGB of an mp4 file.

    start_s: time of the first frame wanted. count: how many frames; None for all to the end.
    size: (H, W) that it must have, asked before anything is decoded.
    Raises DataError if the file is missing, damaged, or has fewer than ``count`` frames.
    """
    import av

    frames: list[np.ndarray] = []
    regular_file(path, "film")
    with av_errors(path, "read"), av.open(str(path)) as container:
        stream = container.streams.video[0]
        base = stream.time_base or Fraction(1)
        if size is not None and (stream.height, stream.width) != size:
            raise DataError(
                f"{path} has {stream.height}x{stream.width} px, expected {size[0]}x{size[1]} px"
            )
        # Refuse damaged pictures; FFmpeg would otherwise paint over them.
        stream.codec_context.options = {"err_detect": "explode"}
        stream.codec_context.thread_count = 1
        half_frame = 0.5 / float(stream.average_rate or 25)
        if start_s > 0:
            container.seek(int(start_s / base), stream=stream)  # to the key frame at or before
        for frame in container.decode(stream):
            if count is not None and len(frames) == count:
                break
            if (frame.pts or 0) * base >= start_s - half_frame:
                frames.append(converted(frame, format="rgb24").to_ndarray())
    if not frames or (count is not None and len(frames) < count):
        raise DataError(
            f"{path} has {len(frames)} frames from {start_s:.3f} s on, expected "
            f"{'at least 1' if count is None else count}; it is truncated or was changed"
        )
    return np.stack(frames)


def mp4_times(path: str | Path) -> tuple[np.ndarray, bytes]:
    """Times (T,) in s of the frames of an mp4, read without decoding, and the decoder's set-up.

    Files with the same set-up (H.264 parameter sets) can be joined by ``join_mp4``.
    """
    import av

    regular_file(path, "film")
    with av_errors(path, "read"), av.open(str(path)) as container:
        stream = container.streams.video[0]
        base = float(stream.time_base or 1)
        times = [p.pts * base for p in container.demux(stream) if p.pts is not None and p.size]
        return np.asarray(times), bytes(stream.codec_context.extradata or b"")


def join_mp4(sources: Sequence[str | Path], target: str | Path, fps: float) -> None:
    """String mp4 files of one set-up together without decoding: every frame stays as it is."""
    import av

    rate = _rate(fps)
    tick = 1 / (rate * MP4_TICKS_PER_FRAME)
    with (
        av_errors(target, "written"),
        av.open(str(target), "w", format="mp4", options=_muxer_options(rate)) as joined,
    ):
        stream: Any = None
        position = 0
        for source in sources:
            with av_errors(source, "read"), av.open(str(source)) as container:
                video = container.streams.video[0]
                if stream is None:
                    stream = joined.add_stream_from_template(video)
                    stream.time_base = tick
                for packet in container.demux(video):
                    if packet.pts is None or not packet.size:
                        continue  # the empty packet that ends a demuxer
                    packet.stream = stream
                    packet.time_base = tick
                    packet.pts = packet.dts = position * MP4_TICKS_PER_FRAME
                    packet.duration = MP4_TICKS_PER_FRAME
                    joined.mux(packet)
                    position += 1


def _rate(fps: float) -> Fraction:
    if not fps > 0:
        raise ConfigError(f"fps is {fps!r}, expected a positive number of frames per second")
    return Fraction(fps).limit_denominator(1001)


def _muxer_options(rate: Fraction) -> dict[str, str]:
    ticks_per_s = rate * MP4_TICKS_PER_FRAME
    options = {"movflags": "+faststart"}
    if ticks_per_s.denominator == 1:
        options["video_track_timescale"] = str(ticks_per_s.numerator)
    return options


@contextmanager
def av_errors(path: str | Path, verb: str) -> Iterator[None]:
    """FFmpeg's many exceptions as OSError when writing and as DataError when reading."""
    import av

    try:
        yield
    except (av.FFmpegError, IndexError) as error:  # IndexError: a container without video
        reason = getattr(error, "strerror", None) or error
        if verb == "written":
            raise OSError(getattr(error, "errno", None) or 0, str(reason), str(path)) from error
        raise DataError(f"{path} cannot be read as video ({reason}); record it again") from error
