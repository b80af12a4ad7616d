"""The `serve` command."""

from pathlib import Path
from typing import Annotated

import typer

from htr_lightning.cli.arguments import Device, Greedy, typer_app
from htr_lightning.output import check_checkpoint
from htr_lightning.pretrained import DEFAULT, NAMES


@typer_app.command()
def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(help=f"Recognizers (*.onnx, *.ckpt, {' or '.join(NAMES)}); default: those of the package"),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on, e.g. 0.0.0.0 for all; needs a token")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free one")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="HTR_TOKEN",
            help="Token that calls of the API need; made and printed if the address is not local and none is given",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Name by which the server may be called (repeatable)")
    ] = None,
    corrections: Annotated[
        Path | None, typer.Option(help="File in which lines that users confirm are stored, for htr feedback")
    ] = None,
    greedy: Greedy = False,
    device: Device = "auto",
    max_mb: Annotated[int, typer.Option(min=1, max=10_000, help="Megabytes of a request")] = 50,
    max_megapixels: Annotated[int, typer.Option(min=1, max=260, help="Megapixels of an image")] = 100,
    max_lines: Annotated[int, typer.Option(min=1, max=20_000, help="Lines of a request")] = 1000,
    max_requests: Annotated[int, typer.Option(min=1, max=900, help="Requests at a time; further ones get 503")] = 128,
    rate: Annotated[
        float | None,
        typer.Option(min=0, help="Requests per second and address; 0 for any (default: 10, or 0 if local)"),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to receive a request; to answer, four times")] = 30,
) -> None:
    """Serve a web page for transcription and correction, and an HTTP API (/openapi.json)."""
    for model in models or ():
        check_checkpoint(model)  # before anything is imported
    from htr_lightning.serve.limits import Limits
    from htr_lightning.serve.server import EXPOSED_RATE, is_local
    from htr_lightning.serve.server import serve as run

    if rate is None:
        rate = 0.0 if is_local(host) else EXPOSED_RATE
    limits = Limits(max_mb * 1_000_000, max_megapixels * 1_000_000, max_lines, max_requests, rate, timeout, 4 * timeout)
    others = [name for name in NAMES if name != DEFAULT]
    run(models or [DEFAULT, *others], host, port, token, allow_host or (), device, greedy, limits, corrections,
        lambda message: print(message, flush=True))  # fmt: skip
