"""Room: how money enters and leaves wallets outside of exchanges.

Owns top-ups, transfers, adjustments and expiry as store transactions. Promises that an event is acknowledged
only when the store holds it, and at most once. Never imports proxy or wire.
"""
