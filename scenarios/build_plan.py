"""When a pool's replicas are there, from configuration: time to boot, and a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scenarios.schema import Section, anything, list_of, number, text, within
from sim.errors import InputError
from sim.fleet.plan import ClockPlan, LoadPlan, Plan, StepPlan


def presence_of(pool: Section, start_utc: str | None) -> dict[str, Any]:
    """`boot_s` and `plan` of a pool; arguments as of `plan_of`."""
    boot_s = pool.get("boot_s", number("a time >= 0 s", low=0.0), 0.0)
    return {"boot_s": boot_s, "plan": plan_of(pool, start_utc)}


def plan_of(pool: Section, start_utc: str | None) -> Plan | None:
    """A plan by the clock, by load, or by a list of times; null: all replicas, always.

    Args:
        pool: section of a pool.
        start_utc: instant of simulated t = 0, for a plan by the clock that does not say its own.
    """
    given, key = pool.get("plan", anything, None), pool.path("plan")
    if given is None:
        return None
    with within(pool.key):
        if isinstance(given, list):
            return StepPlan(given)
        if not isinstance(given, Mapping):
            accepted = "{hours, weekend, zone}, {outstanding_per_replica, ...}, a list of [from_s, replicas], or null"
            raise InputError(key, given, accepted)
        section = Section(given, key)
        made = _by_load(section) if "hours" not in given else _by_the_clock(section, start_utc)
        section.finish()
        return made


def _by_the_clock(section: Section, start_utc: str | None) -> Plan:
    numbers = list_of(anything)
    return ClockPlan(
        section.need("hours", numbers),
        section.need("zone", text),
        section.get("start_utc", text, start_utc),
        section.get("weekend", numbers, None),
    )


def _by_load(section: Section) -> Plan:
    return LoadPlan(
        section.need("outstanding_per_replica", anything),
        section.get("least", anything, 1),
        section.get("every_s", anything, 15.0),
        section.get("down_after_s", anything, 300.0),
    )
