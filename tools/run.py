"""`streamseg run`: a source in, segmented pictures, masks and statistics out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """Examples:

streamseg run street.mp4 -o out.mp4 --legend

streamseg run photos/ -o painted/ --mask masks/ --stats shares.jsonl

streamseg run in.mkv -o out.mkv --classes person,car --start 60 --duration 10

streamseg run street.mp4 --web :8000

streamseg run rtsp://USER:PASSWORD@camera/stream -o out.mkv --duration 60

streamseg run 0 --camera-size 720x1280 --camera-fps 30 --max-latency 100 -o out.mp4

streamseg run in.mp4 --model my.onnx --card my.yaml --mask ids.mkv

streamseg run street.mp4 --show -o rtsp://localhost:8554/segmented

streamseg run a.mp4 b.mp4 c.mp4 -o painted/{name}.mp4 --report all.json

streamseg run rtsp://camera1/live rtsp://camera2/live 0 --mosaic --web -o {name}.mkv

streamseg run in.mp4 --model unet/resnet34 --weights mine.pth --card mine.yaml -o out.mp4
"""

Opt = typer.Option


def run(
    source: Annotated[
        list[str] | None,
        typer.Argument(
            help="A video file, an image, a folder or glob of images, a camera (0, /dev/video0), "
            "or a URL: rtsp, rtmp, http (HLS, MJPEG, files), udp, srt. Several may stand side by "
            "side; their outputs then hold {name} or {index}."
        ),
    ] = None,
    output: Annotated[
        list[str] | None,
        Opt(
            "--output",
            "-o",
            help="Video (.mp4 .mkv .mov .webm .ts), image, %06d.png pattern "
            "or folder/ for the coloured result; HLS playlist (.m3u8); or a receiver's address "
            "(rtsp, rtmp, srt or udp://HOST:PORT). Repeatable.",
        ),
    ] = None,
    mask: Annotated[
        str | None,
        Opt(help="Class ids: lossless .mkv, .png, %06d.png pattern or folder/ of palette PNGs."),
    ] = None,
    stats: Annotated[
        str | None, Opt(help="JSON lines (.jsonl): each frame's share of each class.")
    ] = None,
    rle: Annotated[bool | None, Opt("--rle", help="Add COCO RLE masks to --stats.")] = None,
    model: Annotated[
        str | None,
        Opt(help="A name from `streamseg models`, an .onnx file or a .plan. Default: voc."),
    ] = None,
    card: Annotated[
        str | None,
        Opt(help="The .onnx file's card, if it is not the .yaml beside it; or that of --weights."),
    ] = None,
    weights: Annotated[
        str | None,
        Opt(
            help="For networks of torchvision and SMP: official (torchvision's, the default there),"
            " a state dict (.pth), or random (to measure speed)."
        ),
    ] = None,
    size: Annotated[
        str | None,
        Opt(help="Height x width of the network's input: 512x1024. Default: the card's."),
    ] = None,
    engine: Annotated[
        str | None,
        Opt(help="auto, tensorrt, openvino, onnxruntime or torch. Default: auto, which says why."),
    ] = None,
    precision: Annotated[
        str | None, Opt(help="auto, fp32, bf16, fp16 or int8. Default: auto, the fastest here.")
    ] = None,
    device: Annotated[
        str | None,
        Opt(
            help="A GPU's number for TensorRT and torch, or an OpenVINO device (see doctor); 0,1 "
            "or all to spread several sources over GPUs."
        ),
    ] = None,
    decoder: Annotated[
        str | None,
        Opt(
            help="cpu, or cuda: an NVIDIA GPU's decoder for video files; --device is its number. "
            "Default: cpu."
        ),
    ] = None,
    refine: Annotated[
        str | None,
        Opt(
            help="none, guided (scores enlarged under the picture) or crf (mean-field inference "
            "before it), perhaps with parameters: crf:iterations=3. Default: none."
        ),
    ] = None,
    every: Annotated[
        int | None,
        Opt(
            help="The network sees one of so many frames, the others get its labels, moved as the "
            "picture: for networks that are slow. Default: 1."
        ),
    ] = None,
    overlay: Annotated[
        float | None, Opt(help="Strength of the colours, 0 to 1. Default: 0.5.")
    ] = None,
    classes: Annotated[
        str | None, Opt(help="Paint only these, separated by commas. Default: all but background.")
    ] = None,
    legend: Annotated[bool | None, Opt("--legend", help="Name the colours in the picture.")] = None,
    contours: Annotated[bool | None, Opt("--contours", help="Draw the classes' borders.")] = None,
    smooth: Annotated[
        bool | None,
        Opt("--smooth", help="Hold labels still where the picture does, against flicker."),
    ] = None,
    show: Annotated[
        bool | None,
        Opt("--show", help="Show it in a window: q quits, h names the other keys."),
    ] = None,
    mosaic: Annotated[
        bool | None,
        Opt("--mosaic", help="Several sources: side by side in one picture, for --show or --web."),
    ] = None,
    encoder: Annotated[
        str | None,
        Opt(help="auto (hardware if there is any), libx264, h264_nvenc, ... Default: auto."),
    ] = None,
    quality: Annotated[
        int | None, Opt(help="Constant quality: 0 the best, 51 the worst. Default: 23.")
    ] = None,
    start: Annotated[float | None, Opt(help="Begin at this second of a video.")] = None,
    duration: Annotated[
        float | None, Opt(help="Read this many seconds of a video or stream.")
    ] = None,
    max_frames: Annotated[int | None, Opt(help="Stop after this many frames.")] = None,
    fps: Annotated[
        float | None, Opt(help="Frames a second of a folder of images. Default: 25.")
    ] = None,
    max_latency: Annotated[
        float | None,
        Opt(help="Live: drop what is older than this many milliseconds, and count it as late."),
    ] = None,
    reconnect: Annotated[
        str | None,
        Opt(
            help="Live: never, a number of attempts, or forever, also at the start. Default: auto, "
            "forever, but a source that is down at the start is an error."
        ),
    ] = None,
    open_timeout: Annotated[
        float | None, Opt(help="Live: seconds until the first picture must be there. Default: 10.")
    ] = None,
    stall_timeout: Annotated[
        float | None,
        Opt(help="Live: seconds without data after which to reconnect. Default: 5 (HLS: 20)."),
    ] = None,
    rtsp_transport: Annotated[
        str | None, Opt(help="tcp, udp, or auto: TCP, and UDP if that is refused. Default: auto.")
    ] = None,
    camera_size: Annotated[
        str | None,
        Opt(help="Height x width of a camera's picture: 720x1280. Default: the largest in time."),
    ] = None,
    camera_fps: Annotated[
        float | None, Opt(help="Frames a second of a camera. Default: 30, or as near as it gets.")
    ] = None,
    web: Annotated[
        str | None,
        Opt(
            metavar="[HOST:PORT]",
            help="Show the live picture on a web page, with controls and figures. Default: "
            "127.0.0.1:8000, for this machine alone.",
        ),
    ] = None,
    web_token: Annotated[
        str | None,
        Opt(
            help="What viewers must know, 16 characters or more; better given in the environment, "
            "as STREAMSEG_WEB_TOKEN. Default: made up where other machines can reach the page."
        ),
    ] = None,
    report: Annotated[str | None, Opt(help="Write counts, times and bottleneck as JSON.")] = None,
    trace: Annotated[
        str | None,
        Opt(help="Write every frame's way through the stages, for ui.perfetto.dev (JSON)."),
    ] = None,
    config: Annotated[
        Path | None, Opt(help="A YAML file of these options; the command line overrules it.")
    ] = None,
    force: Annotated[bool | None, Opt("--force", help="Overwrite outputs that exist.")] = None,
    quiet: Annotated[bool | None, Opt("--quiet", "-q", help="Print errors only.")] = None,
    debug: Annotated[bool, Opt("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Segment a video, a live stream, a camera, an image or a folder of images; or several."""
    given = dict(locals())
    for name in ("config", "debug"):
        given.pop(name)
    # Imported here: --help must not wait for OpenCV, FFmpeg and OpenVINO.
    from tools.config import merge
    from tools.execute import execute

    code = execute(merge(config, given))
    if code:
        raise typer.Exit(code)
