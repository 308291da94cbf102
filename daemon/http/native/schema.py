"""The OpenAPI page: schemas from the contract's own values, errors, who may, idempotency keys."""

from __future__ import annotations

import functools
import inspect
from typing import Any, get_args, get_origin

from pydantic import BaseModel, create_model

from daemon.http import problem, wire
from daemon.http.native.base import Endpoint

_PROBLEM = "#/components/schemas/Problem"
_DESCRIPTION = """Recovery points, the mounts they are of, and the sessions that make them.

Times are nanoseconds since 1970, sizes bytes: 64-bit integers. Errors are problem details (RFC 9457); `kind` is what
programs should look at. Lists come in pages: `cursor` of one is the `cursor` of the next, "" at the end. A POST with an
`Idempotency-Key` may be sent again when its answer was lost: it is done once, and answered the same, for a day.
Paths inside points may have bytes that are no UTF-8: in JSON `\\udcXX`, in a query `%XX`.
"""


class Problem(BaseModel):
    """What was refused or failed (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    kind: str
    retryable: bool
    reference: str = ""
    errors: list[dict[str, str]] = []


@functools.cache
def model_of(kind: Any) -> Any:
    """A type of the contract as one that pydantic has a schema for; all its fields are there in an answer."""
    origin = get_origin(kind)
    if origin is not None and wire.is_record(origin):  # Page[T]
        inner = get_args(kind)[0]
        named = f"PageOf{inner.__name__ if wire.is_record(inner) else 'Values'}"
        parts: dict[str, Any] = {"items": (_list_of(inner), ...), "cursor": (str, ...)}
        return create_model(named, **parts)
    if origin is list:
        return _list_of(get_args(kind)[0])
    if not wire.is_record(kind):
        return kind
    fields: dict[str, Any] = {
        name: (model_of(each), ...) for name, each in wire.fields_of(kind).items()
    }
    made = create_model(kind.__name__, **fields)
    made.__doc__ = inspect.getdoc(kind)
    return made


def _list_of(inner: Any) -> Any:
    made = model_of(inner)
    return list[made]  # type: ignore[valid-type]


def responses(endpoint: Endpoint) -> dict[int | str, dict[str, Any]]:
    """The answers of an endpoint: its own, and a problem for everything else."""
    problems = {
        "description": "Refused or failed", "content": {problem.MEDIA_TYPE: {"schema": {"$ref": _PROBLEM}}},
    }  # fmt: skip
    own: dict[str, Any] = {"description": "Done"}
    if endpoint.status != 204 and endpoint.answer is None:
        own["content"] = {endpoint.media: {"schema": {"type": "string"}}}
    found: dict[int | str, dict[str, Any]] = {endpoint.status: own, "default": problems}
    if endpoint.row.path.endswith("/file"):
        found[206] = {**own, "description": "The part that was asked for"}
        found[304] = {"description": "Not changed: what If-None-Match names"}
    if endpoint.row.path.endswith("/events"):
        found[204] = {"description": "Ended, and told before"}
    return found


def described(page: dict[str, Any], endpoints: list[Endpoint]) -> dict[str, Any]:
    """FastAPI's page with what it does not know."""
    page["info"]["description"] = _DESCRIPTION
    schemas = page.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = Problem.model_json_schema()
    page["components"]["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "A token of 'holdfast token create'.",
        }
    }
    for endpoint in endpoints:
        operation = page["paths"][endpoint.row.path][endpoint.row.method.lower()]
        operation["responses"].pop("422", None)
        if endpoint.answer is None:
            operation["responses"][str(endpoint.status)].get("content", {}).pop(
                "application/json" if endpoint.media != "application/json" else "", None
            )
        operation["security"] = [{"token": []}] if endpoint.row.roles else []
        operation["x-roles"] = sorted(endpoint.row.roles)
        if endpoint.keyed:
            operation.setdefault("parameters", []).append({
                "name": "Idempotency-Key", "in": "header", "required": False,
                "description": "Any text, a new one for each request that is not the same.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
            })  # fmt: skip
        if endpoint.upload:
            operation["requestBody"] = {
                "required": True,
                "content": {"multipart/form-data": {"schema": {
                    "type": "object", "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }}},
            }  # fmt: skip
    return page
