"""Small configuration documents that tests vary one key at a time."""

import json
from pathlib import Path


def model(**changes: object) -> dict[str, object]:
    """A complete model entry with `changes`; a value of None leaves the key out."""
    entry: dict[str, object] = {
        "name": "Sonnet",
        "id": "sonnet",
        "type": "openhands",
        "upstream": "openhands",
        "billing_upstream": "openhands",
        "billing_multiplier": "1.05",
        "input_price_per_mtok": "3",
        "output_price_per_mtok": "15",
        "cache_write_price_per_mtok": "3.75",
        "cache_write_1h_price_per_mtok": "6",
        "cache_hit_price_per_mtok": "0.3",
    }
    return {key: value for key, value in (entry | changes).items() if value is not None}


def document(**changes: object) -> dict[str, object]:
    """A complete document with `changes`; a value of None leaves the key out."""
    value: dict[str, object] = {
        "port": 8004,
        "endpoints": [
            {"name": "openhands-openai", "base_url": "https://up.example", "api_key_env": "UP_KEY"},
            {"name": "openhands-anthropic", "base_url": "https://up.example", "api_key_env": "UP_KEY"},
        ],
        "models": [model()],
    }
    return {key: entry for key, entry in (value | changes).items() if entry is not None}


def write(directory: Path, name: str, value: object) -> Path:
    """The path of a file that holds `value` as JSON."""
    path = directory / name
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
