"""Videos: read from files that another writer made or that are damaged, and written for other readers."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from recon_toolkit.data import video
from recon_toolkit.data.video import is_video, read_frames, video_info
from recon_toolkit.errors import DataError
from recon_toolkit.io.video import write_video

Frame = NDArray[np.uint8]
RED, BLUE = (200, 30, 30), (30, 30, 200)
#: Flat colours through YUV 4:2:0 and a lossy codec of high quality come back within a few of 255 steps.
NEAR = 6


def clip(path: Path, count: int = 12, **options: str) -> Path:
    """A 64 × 48 video by PyAV alone: frame i < 14 is grey of 20 + 15 i, but for its left quarter, which is red."""
    width, height = 64, 48
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.options = {"q:v": "1"}
        stream.gop_size = 4
        for number in range(count):
            pixels = np.full((height, width, 3), 20 + 15 * (number % 14), np.uint8)
            pixels[:, : width // 4] = RED
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def turned(path: Path) -> Path:
    """Write into an MP4's track header that it is to be shown a quarter turn clockwise (ISO 14496-12, 8.3.2)."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    # x' = a x + c y, y' = b x + d y: what is left comes to the top.
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    path.write_bytes(data)
    return path


def moving(count: int = 10, width: int = 65, height: int = 47) -> list[Frame]:
    """A red field with a blue square that goes right, 4 pixels a frame."""
    frames = []
    for number in range(count):
        frame = np.full((height, width, 3), RED, np.uint8)
        frame[10:30, 4 * number : 4 * number + 16] = BLUE
        frames.append(frame)
    return frames


def test_frames_and_facts_of_a_video(tmp_path: Path) -> None:
    path = clip(tmp_path / "a b.mp4")
    info = video_info(path)
    assert (info.frames, info.width, info.height, info.rotation) == (12, 64, 48, 0)
    assert info.fps == pytest.approx(10) and info.seconds == pytest.approx(1.2)
    frames = dict(read_frames(path))
    assert list(frames) == list(range(12))
    for number, frame in frames.items():
        assert frame.shape == (48, 64, 3) and frame.dtype == np.uint8
        assert np.abs(frame[8:40, 24:56].astype(int) - (20 + 15 * number)).max() <= NEAR
        assert np.abs(frame[8:40, 2:10].astype(int) - RED).max() <= NEAR


def test_every_second_frame_and_no_more_than_asked_for(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv")
    assert [number for number, _ in read_frames(path, every=5)] == [0, 5, 10]
    found = list(read_frames(path, every=2, limit=3))
    assert [number for number, _ in found] == [0, 2, 4]
    assert abs(int(found[2][1][24, 40, 0]) - 80) <= NEAR
    with pytest.raises(ValueError, match="every and limit"):
        read_frames(path, every=0)


def test_a_phone_s_video_stands_upright(tmp_path: Path) -> None:
    path = turned(clip(tmp_path / "phone.mp4"))
    info = video_info(path)
    assert (info.width, info.height, info.rotation) == (48, 64, 90)
    _, frame = next(read_frames(path))
    assert frame.shape == (64, 48, 3)
    assert np.abs(frame[2:10].astype(int) - RED).max() <= NEAR  # what was left is on top


def test_pixels_that_are_not_square_become_so(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "wide.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    assert next(read_frames(tmp_path / "wide.mkv"))[1].shape == (48, 96, 3)
    assert video_info(tmp_path / "wide.mkv").width == 96


def test_a_truncated_video_gives_what_it_has_and_then_the_error(tmp_path: Path) -> None:
    path = clip(tmp_path / "cut.mp4", count=40, movflags="faststart")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    found: list[int] = []
    with pytest.raises(DataError, match=r"cut\.mp4") as error:
        for number, _ in read_frames(path):
            found.append(number)
    assert error.value.remedy
    # The packets of a clip are about equally long, and its table of contents comes first.
    assert found == list(range(len(found))) and 10 <= len(found) <= 26
    assert len(list(read_frames(path, limit=5))) == 5  # what is asked for is there


def test_a_truncated_matroska_file_is_noticed_too(tmp_path: Path) -> None:
    path = clip(tmp_path / "cut.mkv", count=40)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"cut\.mkv"):
        list(read_frames(path))


def slides(path: Path, times: Sequence[Fraction], rate: Fraction, unit: Fraction, codec: str = "mpeg4") -> Path:
    """A video whose frames begin at these times, by PyAV alone."""
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = unit
        random = np.random.default_rng(0)
        for time in times:
            frame = av.VideoFrame.from_ndarray(random.integers(0, 256, (48, 64, 3)).astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(time / unit), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


#: Containers in which a frame says how long it is shown, and (FLV, WMV) in which none does.
KINDS = {".mp4": "mpeg4", ".mkv": "mpeg4", ".webm": "libvpx", ".avi": "mpeg4", ".flv": "flv1", ".wmv": "wmv2"}


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("fps", ["1/4", "1", "3/2"])
def test_a_slow_video_lasts_until_the_end_of_its_last_frame(tmp_path: Path, suffix: str, fps: str) -> None:
    rate = Fraction(fps)
    path = slides(tmp_path / f"slow{suffix}", [n / rate for n in range(5)], rate, 1 / rate, KINDS[suffix])
    assert [number for number, _ in read_frames(path)] == list(range(5))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".flv"])
def test_a_single_slow_frame_is_a_whole_video(tmp_path: Path, suffix: str) -> None:
    path = slides(tmp_path / f"one{suffix}", [Fraction(0)], Fraction(1, 4), Fraction(4), KINDS[suffix])
    assert len(list(read_frames(path))) == 1


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("times", [(0, 0.2, 2, 2.4, 5, 9), (0, 4, 4.1, 4.2), (0, 3, 3.04, 8)])
def test_frames_at_uneven_times_are_all_of_the_video(tmp_path: Path, suffix: str, times: tuple[float, ...]) -> None:
    starts = [Fraction(time).limit_denominator(1000) for time in times]
    path = slides(tmp_path / f"uneven{suffix}", starts, Fraction(30), Fraction(1, 1000), KINDS[suffix])
    assert len(list(read_frames(path))) == len(times)


def test_the_length_of_a_video_that_starts_late_is_its_own(tmp_path: Path) -> None:
    # In an FLV file the length counts from zero, and the first frame is two frames late where frames are reordered.
    rate = Fraction(3, 2)
    path = slides(tmp_path / "late.flv", [n / rate for n in range(2, 7)], rate, 1 / rate, "flv1")
    assert len(list(read_frames(path))) == 5


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".flv"])
@pytest.mark.parametrize("fps", ["1", "3/2", "10"])
def test_a_slow_video_that_was_cut_off_is_noticed(tmp_path: Path, suffix: str, fps: str) -> None:
    rate = Fraction(fps)
    path = slides(tmp_path / f"cut{suffix}", [n / rate for n in range(20)], rate, 1 / rate, KINDS[suffix])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 7 // 10])
    with pytest.raises(DataError, match=r"damaged or truncated after \d+ frames"):
        list(read_frames(path))


def bad_files(folder: Path) -> dict[str, Path]:
    """Files with a video's name that are none."""
    whole = clip(folder / "whole.mp4").read_bytes()
    random = np.random.default_rng(0)
    contents = {
        "empty": b"",
        "text": b"not a video at all\n" * 50,
        "noise": random.bytes(5000),
        "head": whole[:200],
        "no-table": whole[: len(whole) // 2],  # the table of contents is at the end
        "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nwhole.mp4\n#EXT-X-ENDLIST\n",
        "concat": b"ffconcat version 1.0\nfile whole.mp4\n",
    }
    files = {}
    for name, content in contents.items():
        files[name] = folder / f"{name}.mp4"
        files[name].write_bytes(content)
    files["picture"] = folder / "picture.mp4"
    Image.new("RGB", (8, 8)).save(files["picture"], format="PNG")
    files["sound"] = folder / "sound.mp4"
    with av.open(str(files["sound"]), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        for start in range(0, 8192, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    files["missing"] = folder / "missing.mp4"
    files["folder"] = folder / "folder.mp4"
    files["folder"].mkdir()
    return files


def test_what_is_no_video_gives_one_message_that_names_it(tmp_path: Path) -> None:
    for name, path in bad_files(tmp_path).items():
        for attempt in (lambda path=path: list(read_frames(path)), lambda path=path: video_info(path)):
            with pytest.raises(DataError) as error:
                attempt()
            assert error.value.where == str(path), name
            assert error.value.remedy, name
            assert "\n" not in str(error.value), name
    with pytest.raises(DataError, match="no moving picture"):
        video_info(tmp_path / "sound.mp4")
    with pytest.raises(DataError, match="no such file"):
        video_info(tmp_path / "missing.mp4")


def test_frames_too_large_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clip(tmp_path / "a.mp4")
    monkeypatch.setattr(video, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(DataError, match="64×48"):
        next(read_frames(path))


def test_videos_are_known_by_their_ending() -> None:
    assert is_video("a/B.MP4") and is_video(Path("x.webm")) and is_video("clip.mov")
    assert not is_video("a.gif") and not is_video("a.png") and not is_video("mp4")


@pytest.mark.parametrize("fps", [30.0, 23.976])
def test_an_mp4_plays_elsewhere(tmp_path: Path, fps: float) -> None:
    frames = moving()
    path = tmp_path / "out" / "a:b %d.mp4"  # neither a protocol nor a pattern
    assert write_video(path, iter(frames), fps=fps) == 10
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with path.open("rb") as file, av.open(file) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name in ("h264", "mpeg4") and stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate or 0) == pytest.approx(fps, rel=1e-3)
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(found) == 10
    for frame, expected in zip(found, frames, strict=True):
        assert frame.shape == (48, 66, 3)  # made even
        error = np.abs(frame[:47, :65].astype(int) - expected)
        assert np.median(error) <= NEAR and error[40:].max() <= 2 * NEAR  # colours bleed at the square's edge only
        assert np.abs(frame[:, -1].astype(int) - frame[:, -3]).max() <= 2 * NEAR  # the edge was repeated
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # it plays before it has loaded fully


def test_a_gif_loops_in_time_with_one_palette(tmp_path: Path) -> None:
    frames = moving(14)
    assert write_video(tmp_path / "a.gif", frames, fps=30) == 14
    with Image.open(tmp_path / "a.gif") as file:
        assert (file.n_frames, file.size, file.info["loop"]) == (14, (65, 47), 0)
        length, worst = 0, 0
        for number, expected in enumerate(frames):
            file.seek(number)
            length += file.info["duration"]
            worst = max(worst, np.abs(np.asarray(file.convert("RGB")).astype(int) - expected).max())
    assert length == 470  # 14 / 30 s in whole hundredths: delays of 3 and 4, not always 3
    assert worst <= 6  # two colours fit into the palette; the pattern moves them by half its amplitude, and rounding
    assert write_video(tmp_path / "fast.gif", frames, fps=100) == 7  # browsers slow down what is faster than 50
    with Image.open(tmp_path / "fast.gif") as file:
        assert file.info["duration"] == 20


def test_a_gif_shows_smooth_shades(tmp_path: Path) -> None:
    ramp = np.linspace(40, 220, 64)[:, None, None] * np.linspace(0.6, 1, 48)[None, :, None] * np.array([1, 0.8, 0.7])
    picture = ramp.astype(np.uint8)
    write_video(tmp_path / "a.gif", [picture] * 3)
    with Image.open(tmp_path / "a.gif") as file:
        found = np.asarray(file.convert("RGB")).astype(float)
    # Means over 8 × 8 pixels, the size of the dithering's pattern, are as they were: within 2 of 255 steps.
    error = (found - picture).reshape(8, 8, 6, 8, 3).mean((1, 3))
    assert np.abs(error).max() < 2


def test_a_webp_moves(tmp_path: Path) -> None:
    write_video(tmp_path / "a.webp", moving(), fps=20)
    with Image.open(tmp_path / "a.webp") as file:
        assert file.n_frames == 10 and file.info["loop"] == 0
        file.seek(5)
        assert np.abs(np.asarray(file.convert("RGB")).astype(int)[40:] - RED).max() <= 2 * NEAR


def test_mistakes_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.mp4, \.gif"):
        write_video(tmp_path / "a.avi", moving())
    for suffix in (".mp4", ".gif"):
        with pytest.raises(DataError, match="no frame"):
            write_video(tmp_path / f"a{suffix}", [])
        with pytest.raises(ValueError, match="frame 1 is"):
            write_video(tmp_path / f"a{suffix}", [moving()[0], moving(width=33)[0]])
        with pytest.raises(ValueError, match="uint8"):
            write_video(tmp_path / f"a{suffix}", [np.zeros((4, 4, 3))])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="fps"):
        write_video(tmp_path / "a.mp4", moving(), fps=0)

    def stopping():
        yield from moving(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", stopping())
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        write_video(tmp_path / "file" / "a.mp4", moving())


def test_one_frame_of_one_pixel_is_a_video(tmp_path: Path) -> None:
    dot = np.full((1, 1, 3), 90, np.uint8)
    for suffix in (".mp4", ".gif", ".webp"):
        assert write_video(tmp_path / f"dot{suffix}", [dot]) == 1
    _, frame = next(read_frames(tmp_path / "dot.mp4"))
    assert frame.shape == (2, 2, 3) and np.abs(frame.astype(int) - 90).max() <= NEAR
