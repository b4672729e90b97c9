"""The routes of experiments: what is decided, in the form of whoever reads it.

`/experiments/{name}/decision` is as the web metric of Argo Rollouts reads it (`result`: Successful,
Failed or Inconclusive), `/experiments/{name}/gate` as a webhook of Flagger does: 200 lets it go on,
409 does not. Knows nothing of how decisions come about.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response

from distill.errors import UserError
from distill.production.experiment.story import document, find, tell
from distill.production.prediction_log.connection import Engine, LogUnavailableError
from distill.production.prediction_log.moves import experiments
from distill.production.routing.router import TrialRouter
from distill.production.serving.application import check_admin
from distill.production.serving.documents import write_document
from distill.production.serving.refusals import Kind, RefusedError

GATES = {"Successful": 200, "Inconclusive": 409, "Failed": 409}


def doors(
    engine: Engine, router: TrialRouter, admin_token: str | None
) -> Callable[[FastAPI], None]:
    """Make what adds the routes.

    Args:
        engine: the log.
        router: whose challenger an operator may send away.
        admin_token: that this asks for; None turns it off.
    """
    reading = asyncio.Lock()  # one at a time: a long log takes long to read

    async def decided(name: str) -> dict[str, Any]:
        async with reading:
            return await asyncio.to_thread(_decided, engine, name)

    def add(application: FastAPI) -> None:
        @application.get("/experiments", summary="The experiments of the log, the latest first")
        async def listed() -> Response:
            return _answer({"experiments": await asyncio.to_thread(_listed, engine)})

        @application.get("/experiments/{name}/decision", summary="What is known of a challenger")
        async def decision(name: str) -> Response:
            return _answer(await decided(name))

        @application.post(
            "/experiments/{name}/gate", summary="Whether a challenger may go on: 200, or 409"
        )
        async def gate(name: str) -> Response:
            found = await decided(name)
            return _answer(found, GATES[found["result"]])

        @application.post("/admin/experiments/{name}/abort", summary="Send a challenger away")
        async def abort(name: str, request: Request) -> Response:
            check_admin(admin_token, request.headers.get("authorization", ""))
            trial = router.trial
            if trial is None or trial.setting.experiment != name or trial.is_over:
                raise RefusedError(
                    Kind.UNKNOWN, f"`{name[:80]}` is not under way here.", status=404
                )
            trial.ban = "an operator sent it away"
            return _answer({"experiment": name, "weight": 0.0})

    return add


def _listed(engine: Engine) -> list[str]:
    try:
        return experiments(engine)
    except LogUnavailableError as error:
        raise _unavailable(error) from error


def _decided(engine: Engine, name: str) -> dict[str, Any]:
    try:
        return document(tell(engine, find(engine, name), num_points=0))
    except LogUnavailableError as error:
        raise _unavailable(error) from error
    except UserError as error:
        raise RefusedError(Kind.UNKNOWN, str(error), status=404) from error


def _unavailable(error: UserError) -> RefusedError:
    return RefusedError(Kind.DEFECT, str(error), status=503, retry_after_s=1)


def _answer(content: Any, status: int = 200) -> Response:
    return Response(write_document(content), status, media_type="application/json")
