"""The console's OpenAPI document, made of the table of routes and the models that check what is sent.

Nothing is written twice: a route's summary is its handler's first line, its parameters and bodies are the
models that validate them, its answer, where it has a model, the model it is made of.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from farebox.console.routes import ANYONE, USER, Route

_REF: Final = "#/components/schemas/{model}"
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The whole document, JSON-ready."""
    table = list(routes)
    inputs = {model for route in table for model in (route.body, route.query) if model is not None}
    answers = {route.answer for route in table if route.answer is not None}
    _, definitions = models_json_schema(
        [
            *((model, "validation") for model in _sorted(inputs)),
            *((model, "serialization") for model in _sorted(answers)),
        ],
        ref_template=_REF,
    )
    schemas: dict[str, Any] = definitions.get("$defs", {})
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Farebox console", "version": "1"},
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Error": _ERROR},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "an admin token or an API key"},
                "session": {"type": "apiKey", "in": "cookie", "name": "farebox_session"},
            },
        },
    }


def _operation(route: Route, schemas: Mapping[str, Any]) -> dict[str, Any]:
    roles = sorted(route.roles)
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{re.sub(r'[^a-z]+', '_', route.path)}".rstrip("_"),
        "summary": (route.handler.__doc__ or "").partition("\n")[0],
        "description": f"Roles: {', '.join(roles)}.",
        "tags": ["self-service" if USER in route.roles else "administration"],
        "parameters": [*_path_parameters(route), *_query_parameters(route, schemas), *_headers(route)],
        "security": [] if ANYONE in route.roles else [{"bearer": []}, {"session": []}],
        "responses": {
            "200": {"description": "Done", "content": _json(_schema(route.answer) or {"type": "object"})},
            "default": {"description": "Declined", "content": _json(_reference("Error"))},
        },
    }
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _json(_reference(route.body.__name__))}
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]


def _query_parameters(route: Route, schemas: Mapping[str, Any]) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    properties: Mapping[str, Any] = schemas[route.query.__name__].get("properties", {})
    return [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]


def _headers(route: Route) -> list[dict[str, Any]]:
    if route.body is None or not route.keyed:
        return []
    pattern = {"type": "string", "minLength": 8, "maxLength": 100}
    return [{"name": "Idempotency-Key", "in": "header", "required": True, "schema": pattern}]


def _schema(model: type[BaseModel] | None) -> dict[str, Any] | None:
    return None if model is None else _reference(model.__name__)


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": _REF.format(model=name)}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _sorted(models: Iterable[type[BaseModel]]) -> list[type[BaseModel]]:
    return sorted(models, key=lambda model: model.__name__)
