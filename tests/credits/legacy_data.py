"""Data of the replaced system, made up: documents as its collections hold them, and the sums they must give.

As a script: `legacy_data.py FOLDER USERS LOGS [SEED]` writes a mongodump folder and prints the sums. They are
kept apart from the importer's way of counting: each amount is made as a decimal text, noise is added as a
double, and the nearest pico is found by decimal arithmetic.
"""

import json
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from pathlib import Path
from typing import Any

import bson
from bson import Int64, ObjectId

START = datetime(2026, 1, 12, 3, 4, 5, 678000, tzinfo=UTC)
MODELS = ("claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001", "gpt-5.1", "claude-opus-4-5-20251101")


def nearest_pico(value: float) -> int:
    """By decimal arithmetic: the shortest text of the double, to 12 places, half to even."""
    with localcontext() as context:
        context.prec = 1200
        return int(Decimal(repr(value)).quantize(Decimal("1e-12"), rounding=ROUND_HALF_EVEN).scaleb(12))


@dataclass
class Sums:
    """What an import must book, in pico-USD."""

    pools: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    logs: int = 0
    keys: int = 0


class LegacyData:
    """Users, keys and logs of one seed. About a third of the users lack fields, a third have both pools."""

    def __init__(self, users: int, logs: int, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._users = users
        self._logs = logs
        self.sums = Sums()

    def users(self) -> Iterator[dict[str, Any]]:
        for number in range(self._users):
            yield self._user(number)

    def user_keys(self) -> Iterator[dict[str, Any]]:
        for number in range(0, self._users, 3):
            self.sums.keys += 1
            yield {
                "_id": key_of(number) if number % 2 else f"sk-troll-{number:024d}",
                "name": name_of(number),
                "tier": "pro",
                "tokensUsed": Int64(self._random.randrange(10**9)),
                "requestsCount": 12,
                "isActive": number % 5 != 0,
                "createdAt": START,
                "lastUsedAt": None,
                "planExpiresAt": START - timedelta(days=9),
            }

    def logs(self) -> Iterator[dict[str, Any]]:
        for number in range(self._logs):
            yield self._log(number)

    def _user(self, number: int) -> dict[str, Any]:
        document: dict[str, Any] = {
            "_id": name_of(number),
            "passwordHash": "ab" * 64,
            "passwordSalt": "cd" * 8,
            "role": "user",
            "isActive": number % 17 != 0,
            "createdAt": START - timedelta(minutes=number),
            "apiKey": key_of(number),
            "apiKeyCreatedAt": START,
            "credits": self._money(120),
            "creditsUsed": self._money(900),
            "refCredits": 0,
            "totalInputTokens": Int64(self._random.randrange(10**10)),
            "totalOutputTokens": self._random.randrange(10**8),
            "purchasedAt": START,
            "expiresAt": None if number % 4 else START + timedelta(days=number % 14 - 3),
            "referralCode": f"R{number:07d}",
            "referredBy": None,
            "migration": True,
            "__v": 0,
        }
        self.sums.keys += 1
        if number % 3:
            new = self._money(80)
            document |= {"creditsNew": new, "creditsNewUsed": self._money(40), "tokensUserNew": 77}
            document |= {"purchasedAtNew": START, "expiresAtNew": START + timedelta(days=7)}
            self.sums.pools["creditsNew"] += nearest_pico(new)
        if number % 7 == 0:
            document["refCredits"] = self._money(20)
        if number % 11 == 0:
            del document["credits"], document["expiresAt"], document["isActive"], document["refCredits"]
        if number % 13 == 0:
            document |= {"someFieldNobodyKnows": {"deep": [1, 2.5, None]}, "discordId": "123456789012345678"}
        for pool in ("credits", "refCredits"):
            self.sums.pools[pool] += nearest_pico(document.get(pool, 0))
        return document

    def _log(self, number: int) -> dict[str, Any]:
        user = self._random.randrange(self._users)
        cost = self._money(1) / 40
        self.sums.logs += nearest_pico(cost)
        document: dict[str, Any] = {
            "_id": ObjectId(f"{number:024x}"),
            "userId": name_of(user),
            "userKeyId": key_of(user),
            "trollKeyId": "openhands:key-7" if number % 2 else "main",
            "model": self._random.choice(MODELS),
            "inputTokens": self._random.randrange(200_000),
            "outputTokens": self._random.randrange(8_000),
            "cacheWriteTokens": self._random.randrange(2_000),
            "cacheHitTokens": self._random.randrange(90_000),
            "creditsCost": cost,
            "tokensUsed": self._random.randrange(300_000),
            "statusCode": 200,
            "latencyMs": self._random.randrange(90_000),
            "isSuccess": True,
            "createdAt": START + timedelta(seconds=number),
        }
        if number % 3:
            document["creditType"] = "openhands" if number % 2 else "ohmygpt"
        if number % 10 == 0:
            del document["cacheWriteTokens"], document["cacheHitTokens"]
        return document

    def _money(self, most: int) -> float:
        """A double as years of `$inc` leave it: cents, a cost, or a sum with noise."""
        kind = self._random.randrange(4)
        if kind == 0:
            return float(self._random.randrange(most))
        if kind == 1:
            return round(self._random.random() * most, 2)
        total = self._random.random() * most
        return total - 0.1 + 0.3 - 0.2 if kind == 2 else total


def name_of(number: int) -> str:
    return f"user-{number:06d}"


def key_of(number: int) -> str:
    return f"sk-trollllm-{number:064x}"


def write_bson(path: Path, documents: Iterator[dict[str, Any]]) -> None:
    with path.open("wb") as file:
        for document in documents:
            file.write(bson.encode(document))


def write_dump(folder: Path, data: LegacyData) -> Sums:
    """A mongodump folder; the sums it must give."""
    folder.mkdir(parents=True)
    write_bson(folder / "usersNew.bson", data.users())
    write_bson(folder / "user_keys.bson", data.user_keys())
    write_bson(folder / "request_logs.bson", data.logs())
    return data.sums


if __name__ == "__main__":
    target, users, logs, *seed = sys.argv[1:]
    made = write_dump(Path(target), LegacyData(int(users), int(logs), *map(int, seed)))
    sys.stdout.write(json.dumps({"pools": made.pools, "logs": made.logs, "keys": made.keys}) + "\n")
