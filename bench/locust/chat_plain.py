"""Locust users that send small chat completions, not streamed: `make locust`, or by hand against any Farebox.

FAREBOX_KEY=sk-… locust -f bench/locust/chat_plain.py --host http://127.0.0.1:8004 --headless -u 20 -t 10s

Imports nothing of Farebox: locust patches the whole process.
"""

import os

from locust import FastHttpUser, task


class ChatPlain(FastHttpUser):
    """Asks again as soon as it is answered."""

    @task
    def chat(self) -> None:
        body = {
            "model": os.environ.get("FAREBOX_MODEL", "gpt-5.1"),
            "messages": [{"role": "user", "content": "Say hello to the world."}],
        }
        headers = {"authorization": f"Bearer {os.environ['FAREBOX_KEY']}"}
        with self.client.post(
            "/v1/chat/completions", json=body, headers=headers, name="chat, plain", catch_response=True
        ) as answer:
            if answer.status_code != 200 or not answer.json()["usage"]["prompt_tokens"]:
                answer.failure(f"{answer.status_code}: {answer.text}")
