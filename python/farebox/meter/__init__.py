"""Room: reading what an answer used and pricing it exactly.

Owns the thin Python face of the compiled `farebox._meter` and the price book with its versions. Promises
exact decimals from configured price to charged pico-USD, rounded once, and that usage is read only where the
wire format defines it. Does not touch wallets, sockets or files.
"""
