"""When a pool's replicas are there, from configuration: time to boot, and a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scenarios.schema import Section, anything, list_of, number, text, within
from sim.errors import InputError
from sim.fleet.plan import ClockPlan, Plan, StepPlan


def presence_of(pool: Section, start_utc: str | None) -> dict[str, Any]:
    """`boot_s` and `plan` of a pool; arguments as of `plan_of`."""
    boot_s = pool.get("boot_s", number("a time >= 0 s", low=0.0), 0.0)
    return {"boot_s": boot_s, "plan": plan_of(pool, start_utc)}


def plan_of(pool: Section, start_utc: str | None) -> Plan | None:
    """``{hours: [24 numbers], weekend: [24], zone}``, a list of ``[from_s, replicas]``, or null: all replicas, always.

    Args:
        pool: section of a pool.
        start_utc: instant of simulated t = 0, for a plan by the clock that does not say its own.
    """
    given, key = pool.get("plan", anything, None), pool.path("plan")
    if given is None:
        return None
    with within(pool.key):
        if isinstance(given, Mapping):
            section = Section(given, key)
            numbers = list_of(anything)
            made = ClockPlan(
                section.need("hours", numbers),
                section.need("zone", text),
                section.get("start_utc", text, start_utc),
                section.get("weekend", numbers, None),
            )
            section.finish()
            return made
        if not isinstance(given, list):
            raise InputError(key, given, "{hours, weekend, zone}, a list of [from_s, replicas], or null")
        return StepPlan(given)
