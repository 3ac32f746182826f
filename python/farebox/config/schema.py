"""The configuration's JSON Schema, for editors and for `check-config --schema`."""

from typing import Any

from farebox.config.document import Document
from farebox.config.exact import COMMENT_PREFIX


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a configuration file; comment keys are allowed in every object."""
    schema = Document.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Farebox configuration"
    for part in (schema, *schema.get("$defs", {}).values()):
        if part.get("type") == "object":
            part["patternProperties"] = {f"^{COMMENT_PREFIX}": {}}
    return schema
