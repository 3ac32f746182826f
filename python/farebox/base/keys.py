"""API keys: made, digested, displayed. Only the SHA-256 digest of a key is ever stored (M11)."""

import hashlib
import secrets

KEY_PREFIX = "sk-trollllm-"
_DISPLAY_LENGTH = len(KEY_PREFIX) + 4


def new_key() -> str:
    """A fresh API key: the replaced system's prefix and 64 hex digits (256 random bits). Shown once, never
    stored.
    """
    return KEY_PREFIX + secrets.token_hex(32)


def key_digest(key: str | bytes) -> str:
    """Hex SHA-256 of a key: its `_id` in the store and its identity in every cache."""
    data = key if isinstance(key, bytes) else key.encode("utf-8", "surrogateescape")
    return hashlib.sha256(data).hexdigest()


def display_prefix(key: str) -> str:
    """What may be shown of a key after its creation: the fixed prefix and four digits."""
    return key[:_DISPLAY_LENGTH]
