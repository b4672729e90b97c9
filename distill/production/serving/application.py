"""The routes of the service, put together: protocol, people, operators, dashboard.

Knows paths and who answers them; knows neither models nor experiments, which `service` hides.
"""

import hmac
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.routing import Route

from distill import __version__
from distill.pages import render
from distill.production.serving import openapi, overview
from distill.production.serving.background import Background
from distill.production.serving.documents import write_document
from distill.production.serving.guard import Guard, Limits, Receive, Scope, Send, error_headers
from distill.production.serving.infer import Infer, Metadata, Read
from distill.production.serving.people import People
from distill.production.serving.refusals import Kind, RefusedError
from distill.production.serving.service import Service, defect

_INFER = re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")
ADMIN_VARIABLE = "DISTILL_ADMIN_TOKEN"
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; frame-ancestors 'none'"
)


def make_application(
    service: Service, limits: Limits, more: Callable[[FastAPI], None] = lambda application: None
) -> Guard:
    """Put the service together as an ASGI application.

    Args:
        service: that answers.
        limits: of what clients may do.
        more: adds further routes.
    """
    people = People(service)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with Background(service):
            yield
        people.close()

    application = FastAPI(
        title="distill",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    described = _add_protocol(application, service)
    _add_people(application, people)
    _add_operators(application, service)
    more(application)
    _add_errors(application, service)
    _describe(application, described)
    front = Front(Infer(service), application)
    return Guard(front, limits, lambda refusal: service.refused("any", refusal))


class Front:
    """Lets `infer` pass by the framework, whose layers cost more than a small model does.

    Args:
        infer: answers the protocol's `infer`.
        others: answers everything else.
    """

    def __init__(self, infer: Infer, others: FastAPI) -> None:
        self._infer, self._others = infer, others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on."""
        if scope["type"] == "http" and scope["method"] == "POST":
            found = _INFER.fullmatch(scope["path"])
            if found is not None:
                scope["path_params"] = found.groupdict()
                await self._infer(scope, receive, send)
                return
        await self._others(scope, receive, send)


def _add_protocol(application: FastAPI, service: Service) -> dict[str, Any]:
    """Add the Open Inference Protocol's routes; return their description."""
    says, infer = Metadata(service), Infer(service)
    described: dict[str, Any] = {}
    for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        # Routes are tried in order: what is asked most comes first.
        application.router.routes.append(Route(f"{model}/infer", infer, methods=["POST"]))
        described[f"{model}/infer"] = openapi.infer_operation(f"{model}/infer")
    reads = {
        "/v2": (says.server, "This server"),
        "/v2/health": (says.health, "Which model answers, and what is wrong"),
        "/v2/health/live": (says.live, "Whether the process answers"),
        "/v2/health/ready": (says.ready, "Whether the model answers"),
        "/v2/models/{name}": (says.model, "What the model takes and gives"),
        "/v2/models/{name}/ready": (says.model_ready, "Whether it is ready"),
        "/v2/models/{name}/versions/{version}": (says.model, "What a version takes and gives"),
        "/v2/models/{name}/versions/{version}/ready": (says.model_ready, "Whether it is ready"),
    }
    for path, (method, summary) in reads.items():
        application.router.routes.append(Route(path, Read(service, method), methods=["GET"]))
        described[path] = openapi.read_operation(path, summary)
    return described


def _add_people(application: FastAPI, people: People) -> None:
    @application.post(
        "/predict",
        summary="Ask the model about a picture, or rows of named columns",
        responses=openapi.ERRORS,
        openapi_extra={"requestBody": openapi.PREDICT_BODY, "parameters": openapi.UNIT_HEADER},
    )
    async def predict(request: Request) -> Response:
        return _document(await people.predict(request))

    @application.post(
        "/feedback",
        summary="Say what turned out about a prediction",
        responses=openapi.ERRORS,
        openapi_extra={"requestBody": openapi.FEEDBACK_BODY},
    )
    async def feedback(request: Request) -> Response:
        return _document(await people.feedback(request))


def _add_operators(application: FastAPI, service: Service) -> None:
    page = render("dashboard.html", {"model": service.catalogue.current.model})

    @application.get("/", include_in_schema=False)
    async def dashboard() -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})

    @application.get("/status", summary="The last minute, for the dashboard")
    async def status() -> Response:
        return _document(overview.status(service))

    @application.get("/metrics", summary="Counters in Prometheus's format")
    async def metrics() -> Response:
        return Response(overview.exposition(service), media_type=CONTENT_TYPE_LATEST)

    @application.post("/admin/reload", summary="Look at the registry now", responses=openapi.ERRORS)
    async def reload(request: Request) -> Response:
        check_admin(service.admin_token, request.headers.get("authorization", ""))
        service.peers.call()
        changed = await service.catalogue.reload()
        catalogue = service.catalogue
        problem, version = catalogue.problem, catalogue.current.version
        return _document({"changed": changed, "version": version, "problem": problem})


def check_admin(token: str | None, authorization: str) -> None:
    """Let an operator pass.

    Raises:
        RefusedError: no token is set in the environment, or this is another.
    """
    if not token:
        raise RefusedError(
            Kind.FORBIDDEN,
            f"Expected {ADMIN_VARIABLE} in the service's environment: without it there are no "
            "admin routes.",
            status=403,
        )
    scheme, _, given = authorization.partition(" ")
    same = hmac.compare_digest(given.encode("latin-1"), token.encode())
    if scheme.lower() != "bearer" or not same:
        raise RefusedError(
            Kind.FORBIDDEN,
            f"Expected `Authorization: Bearer` with the token in {ADMIN_VARIABLE}.",
            status=401,
        )


def _add_errors(application: FastAPI, service: Service) -> None:
    """Bring whatever goes wrong into the protocol's form."""

    def answer(request: Request, refusal: RefusedError) -> Response:
        path = request.scope["path"].strip("/")
        service.refused(path if path in ("predict", "feedback") else "other", refusal)
        body = write_document({"error": refusal.message})
        response = Response(body, status_code=refusal.status)
        response.raw_headers = error_headers(refusal, len(body))
        return response

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)
        return answer(request, error)

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = {404: "There is no such page.", 405: "This path takes another method."}
        text = message.get(error.status_code, str(error.detail))
        kind = Kind.UNKNOWN if error.status_code == 404 else Kind.MALFORMED
        response = answer(request, RefusedError(kind, text, status=error.status_code))
        for name, value in (error.headers or {}).items():
            response.headers[name] = value
        return response

    async def broken(request: Request, error: Exception) -> Response:
        return answer(request, defect(error))

    application.add_exception_handler(RefusedError, refused)
    application.add_exception_handler(HTTPException, framework)
    application.add_exception_handler(Exception, broken)


def _describe(application: FastAPI, described: dict[str, Any]) -> None:
    generated = application.openapi()  # kept by FastAPI, which hands it out
    generated["paths"] = {**described, **generated["paths"]}


def _document(content: Any) -> Response:
    return Response(write_document(content), media_type="application/json")
