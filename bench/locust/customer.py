"""A simulated customer: sends one exchange, reads its answer as a client would, and tells what it measured.

What a scenario expects (`expected`: statuses) counts as success, everything else as a failure: a 402 is
counted as money refused either way. Response times end with the last byte.
"""

import json
import random
import time
from typing import ClassVar

import gevent
import options as own
from answers import Stream, error_code, plain_problem
from events import chunk_gap, first_token, money_refused
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS, ResponseContextManager
from locust.exception import CatchResponseError
from prompts import PATHS, Json, question

from locust import FastHttpUser


class Customer(FastHttpUser):
    """Base of every scenario. `key_variable` names the environment variable its key comes from."""

    abstract = True
    network_timeout = 120.0
    connection_timeout = 30.0
    key_variable = own.OWN_KEY
    expected: ClassVar[frozenset[int]] = frozenset({200})
    pause_s, pause_every = 0.0, 0
    """Rest so long after every so many events of a stream; gaps are not measured then."""

    def __init__(self, environment: object) -> None:
        self.options = environment.parsed_options
        self.insecure = self.options.insecure_tls
        self.is_scripted = bool(self.options.scripted_upstream)
        super().__init__(environment)
        self.key = own.key_of(self.key_variable)

    def model(self, wire_format: str) -> str:
        """One of the models of a wire format."""
        return random.choice(own.models_of(self.options, wire_format))

    def asked(self, text: str, **script: object) -> Json:
        """A user's turn; the script is told only to a scripted upstream."""
        return question(text, script, is_scripted=self.is_scripted)

    def exchange(self, wire_format: str, body: Json, name: str, *, leave_after: int = 0) -> None:
        """One exchange, from sending to its last byte, or to leaving after so many events of its stream.

        One that has not ended when --stop-timeout is over is a failure: perhaps nobody will ever answer it.
        Locust also ends users that wait, and some have begun to ask by then: those have not run that long.
        """
        started_s = time.perf_counter()
        try:
            self._exchange(wire_format, body, name, started_s, leave_after)
        except gevent.GreenletExit:
            elapsed_s = time.perf_counter() - started_s
            if 0 < (self.environment.stop_timeout or 0) <= elapsed_s:
                self.environment.events.request.fire(
                    request_type="POST",
                    name=name,
                    response_time=1000 * elapsed_s,
                    response_length=0,
                    exception=CatchResponseError("did not end within --stop-timeout"),
                    context={},
                )
            raise

    def _exchange(self, wire_format: str, body: Json, name: str, started_s: float, leave_after: int) -> None:
        is_streamed = body.get("stream") is True
        with self.client.post(
            PATHS[wire_format],
            data=json.dumps(body),
            headers=self.headers(wire_format),
            name=name,
            stream=is_streamed,
            catch_response=True,
        ) as answer:
            try:
                limit = leave_after if is_streamed else -1
                problem = self._problem(wire_format, answer, name, started_s, limit)
            except FAILURE_EXCEPTIONS as error:
                problem = f"connection: {type(error).__name__}"
            answer.request_meta["response_time"] = 1000 * (time.perf_counter() - started_s)
            if problem:
                answer.failure(problem)
            else:
                answer.success()

    def headers(self, wire_format: str) -> dict[str, str]:
        """Credential and type, as the official clients of the wire format send them."""
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if wire_format == "messages":
            return {**headers, "x-api-key": self.key, "anthropic-version": "2023-06-01"}
        return {**headers, "authorization": f"Bearer {self.key}"}

    def _problem(
        self, wire_format: str, answer: ResponseContextManager, name: str, started_s: float, leave_after: int
    ) -> str:
        """Why the answer is not as the scenario expects; empty when it is. `leave_after` < 0: no stream."""
        status = answer.status_code
        if not status:
            return f"connection: {type(getattr(answer, 'error', None)).__name__}"
        if status != 200:
            code = error_code(answer.content or b"")
            if status == 402:
                elapsed_ms = 1000 * (time.perf_counter() - started_s)
                is_expected = 402 in self.expected
                money_refused.fire(name=name, elapsed_ms=elapsed_ms, code=code, is_expected=is_expected)
            return "" if status in self.expected else f"{status}: {code}"
        if status not in self.expected:
            return "200: was not to be served"
        if leave_after < 0:
            return plain_problem(answer.content or b"")
        return self._read(answer, Stream(wire_format, started_s), name, leave_after)

    def _read(self, answer: ResponseContextManager, stream: Stream, name: str, leave_after: int) -> str:
        """Read a stream to its end, or leave it; why it is not whole."""
        response = answer._response
        is_told = False
        while line := response.readline(b"\n"):
            gap_s = stream.take(line, time.perf_counter())
            answer.request_meta["response_length"] += len(line)
            if not is_told and stream.first_token_s is not None:
                is_told = True
                first_token.fire(name=name, elapsed_ms=1000 * stream.first_token_s)
            if gap_s is None:
                continue
            if not self.pause_every:
                chunk_gap.fire(name=name, elapsed_ms=1000 * gap_s)
            elif stream.events % self.pause_every == 0:
                time.sleep(self.pause_s)
            if leave_after and stream.events >= leave_after:
                response.release()
                return stream.error
        return stream.problem()
