"""Reading the fields that set a request's price, in the loop or beside it; faults as refusals."""

import asyncio

from farebox.base import limits
from farebox.base.errors import Refusal, Refused
from farebox.meter import Scan, ScanError, scan


def scan_now(body: bytes, wire_format: str) -> Scan:
    """The scan of a body. Raises Refused BODY_INVALID."""
    try:
        return scan(body, wire_format, limits.json_depth_max)
    except ScanError as error:
        details: dict[str, object] = {"param": error.field} if error.field else {}
        raise Refused(Refusal.BODY_INVALID, str(error), details=details) from None


async def scan_somewhere(body: bytes, wire_format: str) -> Scan:
    """The same, of large bodies in a thread, so that they delay nobody."""
    if len(body) < limits.scan_in_thread_bytes_min:
        return scan_now(body, wire_format)
    return await asyncio.to_thread(scan_now, body, wire_format)
