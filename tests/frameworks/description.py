"""An OpenAPI document, down to what a client is generated from: paths, methods, schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

METHODS = ("get", "put", "post", "delete", "patch")
KEPT = (
    "type",
    "format",
    "enum",
    "const",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
)


def normalised(document: Mapping[str, Any]) -> dict[str, Any]:
    """Names of schemas, texts and examples are left out; references are followed."""
    schemas = document["components"]["schemas"]
    return {
        f"{method} {path}": _operation(operation, schemas)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method in METHODS
    }


def _operation(operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "parameters": {
            f"{parameter['in']} {parameter['name']}": (
                parameter.get("required", False),
                _schema(parameter["schema"], schemas),
            )
            for parameter in operation.get("parameters", ())
        },
        "body": _content(operation.get("requestBody", {}), schemas),
        "body is required": operation.get("requestBody", {}).get("required", False),
        "responses": {
            status: _content(response, schemas)
            for status, response in operation["responses"].items()
        },
        "security": operation.get("security"),
    }


def _content(body: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of each media type; one that says nothing is left out, as some frameworks do."""
    found = {
        media_type: _schema(content.get("schema", {}), schemas)
        for media_type, content in body.get("content", {}).items()
    }
    return {media_type: schema for media_type, schema in found.items() if schema}


def _schema(schema: Any, schemas: Mapping[str, Any], inside: tuple[str, ...] = ()) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "itself" if name in inside else _schema(schemas[name], schemas, (*inside, name))
    found: dict[str, Any] = {name: schema[name] for name in KEPT if name in schema}
    if "properties" in schema:
        found["properties"] = {
            name: _schema(item, schemas, inside) for name, item in schema["properties"].items()
        }
        found["required"] = sorted(schema.get("required", ()))
    if "items" in schema:
        found["items"] = _schema(schema["items"], schemas, inside)
    if variants := schema.get("anyOf") or schema.get("oneOf"):
        found["variants"] = sorted((_schema(item, schemas, inside) for item in variants), key=_text)
    return found


def _text(schema: Any) -> str:
    """Members have no order in JSON; some frameworks sort them."""
    return json.dumps(schema, sort_keys=True)
