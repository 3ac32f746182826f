"""Room: the operator's and the user's side door.

Owns the loopback port with administration, self-service, payment webhooks, pages and /metrics. Promises never
to share a port or a failure with the proxy. Never imports proxy or wire.
"""
