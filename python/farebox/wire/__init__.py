"""Room: bytes in and bytes out.

Owns the client-facing server, the upstream connections, the relay between them and the error bodies of each
wire format. Promises bounded buffers, hop-by-hop hygiene and that no request byte is sent twice. Does not
know money: the relay takes a tap (a Protocol of its own) and leaves what the tap means to others.
"""
