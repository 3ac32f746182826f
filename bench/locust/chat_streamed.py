"""Locust users that stream chat completions of 100 chunks, 2 ms apart, and measure their first byte.

FAREBOX_KEY=sk-… locust -f bench/locust/chat_streamed.py --host http://127.0.0.1:8004 --headless -u 20 -t 10s
 Imports nothing of Farebox: locust patches the whole process. The prompt's script is for the scripted
upstream.
"""

import os
import time

from locust import FastHttpUser, task

SCRIPT = 'script: {"chunks": 100, "delay_ms": 2, "prompt": 40, "completion": 100}'


class ChatStreamed(FastHttpUser):
    """Streams again as soon as a stream has ended."""

    @task
    def chat(self) -> None:
        body = {
            "model": os.environ.get("FAREBOX_MODEL", "gpt-5.1"),
            "stream": True,
            "messages": [{"role": "user", "content": SCRIPT}],
        }
        headers = {"authorization": f"Bearer {os.environ['FAREBOX_KEY']}"}
        started_s = time.monotonic()
        with self.client.post(
            "/v1/chat/completions",
            json=body,
            headers=headers,
            name="chat, streamed: head",
            stream=True,
            catch_response=True,
        ) as answer:
            tail = next(answer.iter_content(1, decode_content=False), b"")
            first_s = time.monotonic() - started_s
            for piece in answer.iter_content(4096, decode_content=False):
                tail = (tail + piece)[-32:]
            if b"[DONE]" not in tail:
                answer.failure(f"{answer.status_code}: ended without [DONE]")
        self._measured("chat, streamed: first byte", first_s)
        self._measured("chat, streamed: whole", time.monotonic() - started_s)

    def _measured(self, name: str, took_s: float) -> None:
        self.environment.events.request.fire(
            request_type="SSE",
            name=name,
            response_time=took_s * 1000,
            response_length=0,
            exception=None,
            context={},
        )
