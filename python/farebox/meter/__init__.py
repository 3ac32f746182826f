"""Room: what a request may cost, what an answer says, what it costs.

A thin face over the compiled meter: request scan, response head, body pipe and exact prices come from
`farebox._meter` (its stub is the contract); the price book and the bounds for holds are here. Promises exact
decimals from configured price to charged pico-USD, rounded once, and that usage is read only where the wire
format defines it. No I/O, no clock, no wallets.
"""

from farebox._meter import (
    BROKEN,
    CHUNKED,
    END,
    OVERSIZE,
    REUSABLE,
    TERMINAL,
    UNTIL_CLOSE,
    Charge,
    Head,
    HeadError,
    Pipe,
    PlainTerms,
    Price,
    PriceError,
    Reading,
    Scan,
    ScanError,
    format_pico,
    parse_head,
    parse_pico,
    scan,
)
from farebox.meter.estimate import (
    fitting_output_tokens,
    hold_bound_pico,
    input_bound,
    output_bound,
    tool_fee_kind,
    tool_fees,
)
from farebox.meter.price_book import (
    ModelPrice,
    PriceBook,
    charge_of,
    content_hash,
    from_plain,
    model_price,
    new_price_book,
    plain_models,
    to_plain,
)
from farebox.meter.read_body import read_body

__all__ = [
    "BROKEN",
    "CHUNKED",
    "END",
    "OVERSIZE",
    "REUSABLE",
    "TERMINAL",
    "UNTIL_CLOSE",
    "Charge",
    "Head",
    "HeadError",
    "ModelPrice",
    "Pipe",
    "PlainTerms",
    "Price",
    "PriceBook",
    "PriceError",
    "Reading",
    "Scan",
    "ScanError",
    "charge_of",
    "content_hash",
    "fitting_output_tokens",
    "format_pico",
    "from_plain",
    "hold_bound_pico",
    "input_bound",
    "model_price",
    "new_price_book",
    "output_bound",
    "parse_head",
    "parse_pico",
    "plain_models",
    "read_body",
    "scan",
    "to_plain",
    "tool_fee_kind",
    "tool_fees",
]
