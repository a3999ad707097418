"""Constants and conversions. Inside `sim` everything is in s, J, W, g CO2e, USD, bytes and 1/s."""

from __future__ import annotations

SECONDS_PER_HOUR = 3600.0
HOURS_PER_YEAR = 8760.0
SECONDS_PER_YEAR = SECONDS_PER_HOUR * HOURS_PER_YEAR
JOULES_PER_KWH = 3.6e6
TOKENS_PER_MTOK = 1e6  # prices are for a million tokens
GB = 1e9  # decimal gigabyte [bytes]
GIB = 2.0**30  # binary gigabyte [bytes]

#: Bytes of one value in a number format [bytes].
BYTES_PER_VALUE = {
    "fp32": 4.0,
    "tf32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "fp4": 0.5,
    "int4": 0.5,
}
