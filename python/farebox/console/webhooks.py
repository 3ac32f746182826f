"""Deliveries of payment providers over HTTP: bounded, checked, counted, and acknowledged only when durable.

Promises: 2xx means that the store holds what follows from the delivery; whatever failed inside is a 503, so
that the provider delivers again; what was not genuine or makes no sense is a 4xx with its reason. Every
delivery is counted by provider and outcome, and the log has a line without its content.
"""

import logging
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter

from farebox.base.errors import FareboxError
from farebox.config.credits import CreditsSettings
from farebox.console.answers import Declined, declined
from farebox.credits.intake import take
from farebox.credits.notices import Provider, WebhookRefusedError
from farebox.store.base import Store

_log = logging.getLogger(__name__)


class Webhooks:
    """The providers that are configured, and their counters."""

    def __init__(
        self, settings: CreditsSettings, providers: Mapping[str, Provider], registry: CollectorRegistry
    ) -> None:
        self._settings = settings
        self._providers = providers
        self._deliveries = Counter(
            "farebox_webhook_deliveries",
            "deliveries of payment providers",
            ("provider", "outcome"),
            registry=registry,
        )
        for name in providers:
            self._deliveries.labels(name, "failed")  # so that the first failure is a rise, too

    async def deliver(
        self, store: Store, name: str, headers: Mapping[str, str], body: bytes, now_ms: int
    ) -> Mapping[str, object]:
        """The body of a 200. Raises Declined for every other answer."""
        provider = self._providers.get(name)
        if provider is None:
            raise Declined(404, "not_configured", f"deliveries of {name} are not taken here")
        try:
            notice = provider.read(headers, body, now_ms)
            outcome = await take(store, self._settings, notice, now_ms)
        except WebhookRefusedError as refusal:
            self.count(name, refusal.outcome)
            _log.warning("%s: delivery refused (%s): %s", name, refusal.outcome, refusal)
            raise Declined(refusal.status, refusal.outcome, str(refusal)) from None
        except FareboxError as error:
            self.count(name, "failed")
            _log.error("%s: delivery failed, it must come again: %s", name, error)
            answer = declined(error)
            raise Declined(max(answer.status, 500), answer.code, "not taken; deliver it again") from None
        except Exception:
            self.count(name, "failed")
            raise
        self.count(name, outcome.word)
        level = logging.WARNING if outcome.word in {"review", "conflict", "lost"} else logging.INFO
        _log.log(level, "%s: %s %s %s", name, outcome.payment, outcome.word, outcome.reason)
        if outcome.word == "conflict":
            raise Declined(409, outcome.word, outcome.reason)
        return {
            "success": True,
            "outcome": outcome.word,
            "payment": outcome.payment,
            "reason": outcome.reason,
        }

    def count(self, name: str, outcome: str) -> None:
        """Note one delivery."""
        self._deliveries.labels(name, outcome).inc()
