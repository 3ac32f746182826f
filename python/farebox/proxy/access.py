"""Who may ask for what: a request's key, how often it is used, and the models it may name."""

from farebox.base.errors import Refusal, Refused
from farebox.base.keys import key_digest
from farebox.base.records import KeyRecord
from farebox.config.settings import ModelRow, Service
from farebox.proxy.rates import RateState
from farebox.proxy.refusals import KEY_NOT_VALID
from farebox.proxy.worker import Worker
from farebox.wire.incoming import Incoming
from farebox.wire.routes import Route


class Access:
    """The checks of one service that come before money."""

    def __init__(self, worker: Worker, service: Service) -> None:
        self._worker = worker
        self._service = service

    async def find_key(self, client: Incoming) -> KeyRecord:
        """The client's key. Raises Refused, and the store's faults where it must be asked."""
        digest = key_digest(client.api_key())
        accounts = self._worker.accounts
        key = accounts.get(digest) or await accounts.find(digest, self._worker.loop.time())
        if key is None:
            raise Refused(Refusal.KEY_UNKNOWN, KEY_NOT_VALID)
        return key

    def check_key(self, key: KeyRecord, now_ms: int) -> None:
        """Raise Refused unless the key is valid now and its user active."""
        expired = key.expires_at_ms is not None and key.expires_at_ms <= now_ms
        if expired or not key.key_active or not key.user_active:
            raise Refused(Refusal.KEY_REVOKED, KEY_NOT_VALID)

    def counted(self, key: KeyRecord, now_ms: int) -> RateState:
        """The key is good; count the request against its rate."""
        if not key.key_active or not key.user_active or key.expires_at_ms is not None:
            self.check_key(key, now_ms)
        worker = self._worker
        limit = key.requests_per_minute or self._service.requests_per_minute
        rate = worker.rates.admit(key.digest, limit, worker.loop.time())
        if rate.retry_after_s:
            raise Refused(
                Refusal.RATE_LIMITED,
                f"Rate limit of {rate.limit} requests a minute reached; try again in {rate.retry_after_s} s.",
                retry_after_s=rate.retry_after_s,
            )
        return rate

    def model(self, name: str, route: Route, key: KeyRecord) -> ModelRow:
        """The model that the key may use on the route under that name. Raises Refused."""
        model = self.allowed_model(name, key)
        if route.name not in model.endpoints:
            raise Refused(Refusal.UNSUPPORTED, f"The model {model.id} is not served on {route.path}.")
        return model

    def allowed_model(self, name: str, key: KeyRecord) -> ModelRow:
        """The model that the key may use under that name, on whichever route. Raises Refused."""
        model = self._service.models.get(name)
        if model is None:
            raise Refused(Refusal.MODEL_UNKNOWN, f"The model {_shown(name)} does not exist here.")
        if key.allowed_models is not None and model.id not in key.allowed_models:
            raise Refused(Refusal.MODEL_NOT_ALLOWED, f"This key may not use the model {model.id}.")
        return model


def _shown(name: str) -> str:
    """A name from outside, safe and short enough for a message."""
    return repr(name[:80])
