"""The page of a head and its endpoints.

GET   /               the page: drop images, see classes
POST  /predict        images in, predictions out, as JSON
GET   /head           which head answers, and what is asked of it
GET   /api            these endpoints for people; /openapi.json for programs
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, File, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException as StarletteError

from featcache.errors import FeatcacheError
from featcache.pages.page import Page, page
from heads.predicted import Candidate, Prediction
from heads.serve.batching import BusyError, ClosedError
from heads.serve.guard import POLICY, RETRY, Guard
from heads.serve.hosts import Hosts
from heads.serve.service import Answer, Service, Upload

LONGEST_NAME = 200
"""Most characters of the name of a file that are sent back."""
EXAMPLE = Prediction(
    id="photo.jpg",
    candidates=(Candidate(label=3, name="red fox", probability=0.91),),
    set=(Candidate(label=3, name="red fox", probability=0.91),),
    rejected=False,
)
REFUSALS = {
    403: "A page of another site sent the request.",
    408: "The request did not arrive in time.",
    413: "The request, or every image in it, is too large.",
    415: "No image in the request could be used, or it is not multipart/form-data.",
    422: "The form has no files named images.",
    429: "Too many images are waiting; Retry-After says when to try again.",
    503: "The images could not be answered, e.g. for want of memory; or the server is stopping.",
}


def make_app(service: Service, hosts: Hosts) -> FastAPI:
    """Make the application.

    Args:
        service: What answers; it is closed when the server ends.
        hosts: The names of the server.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    facts = service.facts()
    app = FastAPI(
        title="A head of featcache",
        summary=f"{facts['method']} with {len(facts['classes'])} classes",
        docs_url=None,  # these load scripts from elsewhere; /api is a page of our own
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Guard, hosts=hosts, limits=service.limits)
    front = page(
        "serve.html",
        styles=("serve.css",),
        script="serve.js",
        facts=facts,
        limits=asdict(service.limits),
    )

    @app.get("/", include_in_schema=False)
    async def show() -> HTMLResponse:
        return _html(front)

    @app.get("/api", include_in_schema=False)
    async def show_endpoints(request: Request) -> HTMLResponse:
        return _html(
            page("api.html", styles=("serve.css",), schema=app.openapi(), base=request.base_url)
        )

    @app.get(
        "/head",
        summary="Which head answers, and what is asked of it",
        response_description="Method, backbone, classes, and the shares that are promised.",
    )
    async def describe() -> Response:
        return _json(facts)

    @app.post(
        "/predict",
        summary="The classes of images, best first",
        responses={
            200: {
                "description": "A prediction for every image, in order; a problem says why one has "
                "none. Calibrated heads have set and rejected.",
                "content": {"application/json": {"example": {"predictions": [EXAMPLE.to_json()]}}},
            },
            **{code: {"description": text} for code, text in REFUSALS.items()},
        },
    )
    async def predict(
        images: Annotated[list[UploadFile], File(description="One or more files.")],
    ) -> Response:
        if len(images) > service.limits.files:
            raise HTTPException(
                413, f"The request has {len(images)} images; at most {service.limits.files} go."
            )
        uploads = [
            Upload((image.filename or f"images[{number}]")[:LONGEST_NAME], await image.read())
            for number, image in enumerate(images)
        ]
        return _answered(await service.answer(uploads))

    app.add_exception_handler(RequestValidationError, _no_images)
    app.add_exception_handler(HTTPStatus.NOT_FOUND, _unknown)
    app.add_exception_handler(HTTPStatus.METHOD_NOT_ALLOWED, _other_method)
    app.add_exception_handler(BusyError, _busy)
    app.add_exception_handler(ClosedError, _closed)
    app.add_exception_handler(FeatcacheError, _failed)
    return app


def _html(made: Page) -> HTMLResponse:
    return HTMLResponse(made.html, headers={POLICY: f"{made.policy}; frame-ancestors 'none'"})


def _answered(answers: list[Answer]) -> Response:
    """Write predictions; where no image could be used, the status is that of the first."""
    content: dict[str, Any] = {"predictions": [each.prediction.to_json() for each in answers]}
    if any(each.status == HTTPStatus.OK for each in answers):
        return _json(content)
    first = answers[0]
    return _json(
        {"detail": f"{first.prediction.id} {first.prediction.problem}.", **content}, first.status
    )


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Write JSON in ASCII: names may hold what UTF-8 cannot."""
    text = json.dumps(content, allow_nan=False)
    return Response(text, status, headers, media_type="application/json")


def _refused(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    return _json({"detail": detail}, status, headers)


async def _no_images(*_: Any) -> Response:
    return _refused(
        422, "The form has no files named images; send some, as curl -F images=@photo.jpg does."
    )


async def _unknown(request: Request, _: Exception) -> Response:
    return _refused(404, f"There is no {_path(request)} here; /api shows what there is.")


async def _other_method(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteError)  # the base of FastAPI's own
    headers = dict(error.headers or {})
    takes = headers.get("Allow", "another method")
    hint = "; send images, as curl -F images=@photo.jpg does" if takes == "POST" else ""
    return _refused(405, f"{_path(request)} takes {takes}, not {request.method}{hint}.", headers)


def _path(request: Request) -> str:
    """Return the path of a request, of bounded length."""
    return request.url.path[:LONGEST_NAME]


async def _busy(*_: Any) -> Response:
    return _refused(429, "Too many images are waiting. Try again in a second.", RETRY)


async def _closed(*_: Any) -> Response:
    return _refused(503, "The server is stopping.")


async def _failed(_: Request, error: Exception) -> Response:
    return _refused(503, str(error))
