"""The routes of the web page and the API."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, Literal, TypeVar

import cv2
import python_multipart  # noqa: F401 - FastAPI reads forms with it, and would miss it only when the first one comes
from fastapi import FastAPI, File, Form, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import GetPydanticSchema, Json, WithJsonSchema
from pydantic_core import core_schema
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException

from htr_lightning.data.corrections import CorrectionStore, StoreError
from htr_lightning.data.image import read_image
from htr_lightning.errors import InputError, printable
from htr_lightning.pretrained import LANGUAGES
from htr_lightning.serve import corrections, uploads
from htr_lightning.serve.answers import (
    BatchTranscribed,
    Collected,
    CorrectedLine,
    CorrectedText,
    Fault,
    Health,
    Model,
    Offer,
    Stored,
    Transcribed,
)
from htr_lightning.serve.answers import Name as Person
from htr_lightning.serve.guard import Guard
from htr_lightning.serve.limits import Limits
from htr_lightning.serve.metrics import Metrics, resident_bytes
from htr_lightning.serve.uploads import Served, Upload
from htr_lightning.text.script import CODES, scripts
from htr_lightning.version import __version__

STATIC = Path(__file__).parent / "static"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
EXPORTED = {"page": "application/xml", "alto": "application/xml", "hocr": "text/html", "pdf": "application/pdf"}
PREVIEW_SIDE = 3000  # pixels
SHOWN = 60  # characters of a value in a message
ABOUT = (
    "Transcription of handwritten lines and pages. Errors are JSON with the field `error`, one line that names what is "
    "wrong, its value and the remedy."
)


def _as_file(value: object) -> UploadFile:
    if not isinstance(value, UploadFile):
        raise ValueError("expected a file with a name")
    return value


# FastAPI's own UploadFile is a class of which routes never receive an instance
Sent = Annotated[
    UploadFile,
    GetPydanticSchema(lambda *_: core_schema.no_info_plain_validator_function(_as_file)),
    WithJsonSchema({"type": "string", "format": "binary"}),
]
Files = Annotated[list[Sent], File(description="images, and the PAGE or ALTO files of those that are pages")]
Images = Annotated[list[Sent], File(description="images of one line or character each")]
Name = Annotated[str | None, Form(description="name of a recognizer (see /api/models)")]
NBest = Annotated[int, Form(ge=0, le=10, description="number of alternatives per line")]
Found = TypeVar("Found")


def make_app(
    models: Sequence[Served],
    limits: Limits | None = None,
    hosts: Sequence[str] = (),
    token: str | None = None,
    store: CorrectionStore | None = None,
) -> Guard:
    """Return the ASGI application.

    Args:
        models: recognizers; the first one is used unless a request names another.
        limits: limits on requests.
        hosts: names by which the server may be called (see `Guard`).
        token: token that calls of the API need; None for none.
        store: where confirmed lines are stored; None to store nothing.
    """
    by_name = {served.name: served for served in models}
    bounds, metrics = limits or Limits(), Metrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for served in models:
            served.batcher.close()

    app = FastAPI(title="htr-lightning", version=__version__, description=ABOUT, lifespan=lifespan, docs_url=None,
                  redoc_url=None, responses={"4XX": {"model": Fault}})  # fmt: skip
    _answer_errors(app)

    def chosen(model: str | None) -> Served:
        if model is None:
            return models[0]
        if model not in by_name:
            raise InputError(f"model {model[:SHOWN]!r}: not served here; use {' or '.join(by_name)}")
        return by_name[model]

    async def in_time(work: Awaitable[Found]) -> Found:
        try:
            async with asyncio.timeout(bounds.seconds):
                return await work
        except TimeoutError:
            raise HTTPException(
                503, f"not finished after {bounds.seconds:g} s; send fewer lines at a time", {"Retry-After": "10"}
            ) from None

    @app.get("/health")
    async def health() -> Health:
        """Say that the server is running."""
        return Health(status="ok", version=__version__)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def counters() -> str:
        """Return counters in the text format of Prometheus."""
        waiting = sum(len(served.batcher) for served in models)
        return metrics.text(
            {
                "htr_queue_lines": ("Lines that wait to be read.", waiting),
                "htr_requests_running": ("Calls of the API in progress.", guard.running),
                "process_resident_memory_bytes": ("Memory that the server occupies.", resident_bytes()),
            }
        )

    @app.get("/api/models")
    async def offer() -> Offer:
        """Return the recognizers and the limits of this server."""
        return Offer(models=[_described(served) for served in models], version=__version__,
                     max_bytes=bounds.body_bytes, max_lines=bounds.lines, corrections=store is not None)  # fmt: skip

    @app.post("/api/transcribe")
    async def transcribe(files: Files, model: Name = None, n_best: NBest = 0) -> Transcribed:
        """Transcribe images of lines, and pages with their PAGE or ALTO files."""
        served = chosen(model)

        async def work() -> Transcribed:
            given = _given(files)
            with uploads.private_folder() as folder:
                await asyncio.to_thread(uploads.save, given, folder)
                names = [upload.name for upload in given]
                sources, notes = await asyncio.to_thread(uploads.sources_of, folder, names, bounds)
                found = [await uploads.transcribe(served, source, folder, n_best, bounds) for source in sources]
            metrics.lines[served.name] += sum(len(file.lines) for file in found)
            return Transcribed(model=served.name, files=found, notes=notes)

        return await in_time(work())

    @app.post("/api/batch")
    async def batch(images: Images, model: Name = None, n_best: NBest = 0) -> BatchTranscribed:
        """Transcribe many images of one line each; those that cannot be read have an `error`."""
        served = chosen(model)
        lines = await in_time(uploads.transcribe_images(served, _given(images), bounds, n_best))
        metrics.lines[served.name] += len(lines)
        return BatchTranscribed(model=served.name, lines=lines)

    @app.post(
        "/api/export", response_class=Response, responses={200: {"content": {kind: {} for kind in EXPORTED.values()}}}
    )
    async def export(
        file: Annotated[Sent, File(description="the PAGE or ALTO file of a page, or the image of a line")],
        lines: Annotated[Json[list[CorrectedLine]], Form(description="JSON list of id, text and confidence")],
        format: Annotated[
            Literal["page", "alto", "hocr", "pdf"],
            Form(
                description="PAGE XML or ALTO, of the version of the file that was sent if it has this format, else of "
                "the newest; hOCR, or a searchable PDF, which needs the image"
            ),
        ] = "page",
        image: Annotated[Sent | None, File(description="the image of the page, in which words are located")] = None,
        language: Annotated[str, Form(max_length=35, description="language to state, such as fr")] = "",
        model: Name = None,
    ) -> Response:
        """Write corrected texts into a file for transcription editors, or into a searchable PDF."""
        upload, picture = _given([file])[0], None if image is None else _given([image])[0]
        served, deadline = chosen(model), monotonic() + bounds.seconds
        work = asyncio.to_thread(uploads.export, served, upload, picture, lines, format, language, bounds, deadline)
        return Response(await in_time(work), media_type=EXPORTED[format])

    @app.post("/api/preview", response_class=Response, responses={200: {"content": {"image/png": {}}}})
    async def preview(file: Annotated[Sent, File(description="an image")]) -> Response:
        """Return an image as a greyscale PNG, for browsers that cannot show its format, such as TIFF."""
        (upload,) = _given([file])
        return Response(await in_time(asyncio.to_thread(_preview, upload, bounds)), media_type="image/png")

    if store is not None:

        @app.post("/api/corrections")
        async def keep(
            files: Files,
            lines: Annotated[Json[list[CorrectedText]], Form(description="JSON list of id, text, before, confidence")],
            model: Name = None,
            who: Annotated[Person, Form(description="name of the person")] = "",
            group: Annotated[Person, Form(description="writer; empty for the name of the page")] = "",
        ) -> Stored:
            """Store corrected and confirmed lines of an image or page for training; the answer says that they are."""
            served, given, deadline = chosen(model), _given(files), monotonic() + bounds.seconds
            work = asyncio.to_thread(corrections.keep, store, served, given, lines, who, group, bounds, deadline)
            added = await in_time(work)
            told = [line.told for line in added.contradictions]
            return Stored(accepted=added.accepted, duplicates=added.duplicates, contradictions=told)

        @app.get("/api/corrections")
        async def collected() -> Collected:
            """Return how many corrections wait for training, and what the last training gained."""
            return await in_time(asyncio.to_thread(corrections.collected, store))

    _add_page(app)
    paths = [path for route in app.routes if (path := getattr(route, "path", None)) and "{" not in path]
    guard = Guard(app, bounds, metrics, paths, hosts, token)
    return guard


def _given(files: Sequence[UploadFile]) -> list[Upload]:
    return [Upload(uploads.check_name(file.filename or ""), file.file) for file in files]


def _described(served: Served) -> Model:
    return Model(
        name=served.name,
        single_characters=served.recognizer.single_characters,
        alternatives=served.alternatives,
        characters=len(served.recognizer.card["alphabet"]),
        scripts=[CODES[name] for name in scripts(served.recognizer.card["alphabet"])],
        languages=list(LANGUAGES.get(served.name, ())),
    )


def _preview(upload: Upload, limits: Limits) -> bytes:
    pixels = read_image(upload.name, content=upload.content.read(), max_pixels=limits.pixels)
    if (scale := PREVIEW_SIDE / max(pixels.shape)) < 1:
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".png", pixels)[1].tobytes()


def _add_page(app: FastAPI) -> None:
    """Add the files of the web page, which are read once, so that no request can name any other file."""
    files: Mapping[str, tuple[bytes, str]] = {
        path.name: (path.read_bytes(), TYPES[path.suffix]) for path in STATIC.iterdir() if path.suffix in TYPES
    }

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return file("index.html")

    @app.get("/static/{name}", include_in_schema=False)
    async def file_of(name: str) -> Response:
        return file(name)

    def file(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, f"/static/{name[:SHOWN]}: no such file; open / for the page")
        content, kind = files[name]
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})


def _answer_errors(app: FastAPI) -> None:
    """Let all errors be JSON of one line."""

    @app.exception_handler(InputError)
    async def input_error(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(StoreError)
    async def not_stored(_: Request, error: Exception) -> JSONResponse:
        print(error, file=sys.stderr)  # with the path, which is not for clients
        return JSONResponse({"error": "corrections: not stored, see the log of the server; retry later"}, 503,
                            {"Retry-After": "10"})  # fmt: skip

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return JSONResponse({"error": _first_fault(error.errors())}, 422)

    @app.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, StarletteHTTPException)
        message = str(error.detail)
        if error.detail in ("Not Found", "Method Not Allowed"):
            message = f"{request.method} {request.url.path[:SHOWN]}: {message.lower()}; see /openapi.json"
        return JSONResponse({"error": printable(message)}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:  # its traceback goes to the log of the server
        return JSONResponse({"error": f"the server failed ({type(error).__name__}); see its log"}, 500)


def _first_fault(errors: Sequence[Any]) -> str:
    first = errors[0]
    key = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
    value = "nothing" if first["input"] is None else str(first["input"])
    shown = f"{value[:SHOWN]}..." if len(value) > SHOWN else value
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return printable(f"{key[: 2 * SHOWN]}: {first['msg'].lower()}, got {shown}{more}; see /openapi.json")
