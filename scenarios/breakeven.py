"""``hybridfleet breakeven``: from which volume of tokens a day rent or hardware of one's own costs less than an API.

model=ID xpu=ID   what a replica serves, on what; api=[ID,ID] price lists of conf/api
slo=ID            what users expect (chat_relaxed); inference.lengths=azure_conv_2023, or inference.prompt= and .output=
profile=flat      load by the hour: flat | diurnal | [24 weights]; own hardware is there for the fullest hour all day,
                  rented hardware all day, or by a plan only for what each hour asks for
rent.NAME= own.NAME=   fields of either cost, such as rent.usd_per_xpu_hour=2 own.purchase_usd_per_xpu=30000
cached=0          share of prompt tokens that APIs charge as cached
spread=0.25       of hardware prices, up and down, for the intervals [assumed]; seeds=3 of capacity
out=DIR           table, JSON and figure; all else as in `hybridfleet size`

Capacity is simulated: the highest rate at which `inference.attainment` of the requests meet the SLO. Hardware comes in
whole replicas. Latency is not compared: it is the SLO for hardware, and whatever an API has.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.breakeven import HOURS, BreakEven, Cost, FloatArray, Hardware, break_even, envelope
from scenarios import cli
from scenarios.breakeven_inputs import Api, Replica, apis, inputs_of, measure, profile_of
from scenarios.schema import integer, list_of, number, text
from scenarios.settings import arguments_of, pairs, plain_value
from scenarios.size_inputs import read_inputs
from sim.errors import InputError
from sim.units import TOKENS_PER_MTOK

KEYS = ("model", "xpu", "api", "profile", "cached", "spread", "seeds", "slo", "out", "rent.", "own.")
RENT, PLAN, OWN = "rent", "rent by a plan", "own"
POINTS = 400  #: of a curve
_CORNERS = ((0, 1.0), (2, -1.0))  #: capacity (least, most) with prices of hardware (up, down)


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status.

    Raises:
        InputError: something on the command line cannot be used, or no number of xPUs does.
    """
    arguments = arguments_of("breakeven", __doc__, "what to compare", argv)
    given = {key: plain_value(value) for key, value in pairs(arguments.settings)}
    names, search = _names(given.pop("api", None)), arguments.config_dir
    model = text("model", given.pop("model", None))
    rent, own = (_below(given, name) for name in (RENT, OWN))
    profile = profile_of(given.pop("profile", "flat"), search)
    cached = number("a share in [0, 1]", low=0.0, high=1.0)("cached", given.pop("cached", 0.0))
    spread = number("a share in [0, 0.9]", low=0.0, high=0.9)("spread", given.pop("spread", 0.25))
    seeds = integer(1)("seeds", given.pop("seeds", 3))
    if "cost" in given:
        raise InputError("cost", given["cost"], "rent.NAME and own.NAME: both are compared")
    if "xpu" not in given:
        raise InputError("xpu", None, "an accelerator; see `hybridfleet list xpus`")
    out = Path(text("out", given["out"])) if "out" in given else None
    inputs = read_inputs(given, search, text("slo", given.get("slo", "chat_relaxed")), KEYS)
    if out is not None:
        from scenarios.store import check_out

        check_out(out)
    replica = measure(model, inputs, rent, own, seeds)
    offers = apis(names, replica, cached, search)
    found = report(replica, offers, profile, spread)
    if out is not None:
        _write(found, replica, offers, profile, spread, out)
    if arguments.json:
        print(json.dumps(found, indent=2, allow_nan=False))
    else:
        _print(found, replica, offers)
        if out is not None:
            print(f"Results: {out}")
    return 0


def _names(asked: Any) -> list[str]:
    if isinstance(asked, str):
        asked = [part.strip() for part in asked.strip("[]").split(",")]
    names = list_of(text)("api", asked)
    if not names or len(set(names)) < len(names):
        raise InputError("api", names, "one or several that occur once; see `hybridfleet list apis`")
    return names


def _below(given: dict[str, Any], name: str) -> dict[str, Any]:
    """Keys such as ``rent.discount`` below a name; takes them out of `given`."""
    found = {key: given.pop(key) for key in list(given) if key.startswith(f"{name}.")}
    return {key.removeprefix(f"{name}."): value for key, value in found.items()}


def hardware(replica: Replica, which: int = 1, factor: float = 1.0) -> dict[str, Hardware]:
    """Rented all day, rented by a plan, and owned.

    Args:
        replica: as measured.
        which: capacity: the least (0), mean (1) or most (2) of the seeds.
        factor: on prices of hardware, electricity apart.
    """
    tokens, rent = replica.tokens_per_day[which], factor * replica.rent_usd_per_hour
    own = factor * replica.own_usd_per_hour + replica.idle_usd_per_hour
    return {
        RENT: Hardware(tokens, rent),
        PLAN: Hardware(tokens, rent, by_hour=True),
        OWN: Hardware(tokens, own, replica.work_usd_per_token),
    }


def cost_of(offer: Hardware | Api, profile: FloatArray) -> Cost:
    """USD a day of volumes."""
    if isinstance(offer, Api):
        return lambda volume: offer.usd_per_token * volume
    return lambda volume: offer.usd_per_day(volume, profile)


def report(replica: Replica, offers: Sequence[Api], profile: FloatArray, spread: float) -> dict[str, Any]:
    """Everything that was found, as plain data."""
    flat = bool(np.ptp(profile) < 1e-12)
    pairs_of = [(name, offer) for offer in offers for name in (RENT, *(() if flat else (PLAN,)), OWN)]
    rows = [_row(replica, name, offer, profile, spread) for name, offer in pairs_of]
    rows.append(_row(replica, OWN, RENT, profile, spread))
    if not flat:
        rows.append(_row(replica, OWN, PLAN, profile, spread))
    unit = {offer.name: offer.usd_per_token * TOKENS_PER_MTOK for offer in offers}
    full = {}
    for name, each in hardware(replica).items():
        volume = np.array([each.tokens_per_day / HOURS / profile.max()])  # one replica, its fullest hour full
        full[name] = float(each.usd_per_day(volume, profile)[0] / volume[0] * TOKENS_PER_MTOK)
    listed = inputs_of(replica, offers, spread)
    return {
        "break_even": rows,
        "usd_per_mtok": unit | {name: usd for name, usd in full.items() if not flat or name != PLAN},
        "replica": {
            "model": replica.pool.model.id, "xpu": replica.pool.xpu.id, "xpus": replica.pool.xpus_per_replica,
            "tokens_per_day": dict(zip(("low", "mean", "high"), replica.tokens_per_day)),
            "requests_per_s": list(replica.requests_per_s),
        },
        "profile": profile.tolist(),
        "inputs": {i.key: {"value": i.value, "unit": i.unit, "kind": i.kind, "source": i.source} for i in listed},
    }  # fmt: skip


def _row(replica: Replica, name: str, than: Api | str, profile: FloatArray, spread: float) -> dict[str, Any]:
    """From which volume one is cheaper than the other, with the interval that capacity and prices leave."""

    def found(which: int, factor: float, other: float) -> BreakEven:
        mine = hardware(replica, which, factor)[name]
        rival = hardware(replica, which, other)[than] if isinstance(than, str) else than
        return break_even(cost_of(mine, profile), cost_of(rival, profile), mine.edges(profile))

    central = found(1, 1.0, 1.0)
    low, high = envelope([found(which, 1.0 + sign * spread, 1.0 - sign * spread) for which, sign in _CORNERS])
    there = None
    if central.first:
        there = int(hardware(replica)[name].replicas(np.array([central.first]), profile).max())
    peak = replica.tokens_per_day[1] / HOURS / profile.max()  # of a replica whose fullest hour is full
    return {
        "what": name,
        "cheaper_than": than if isinstance(than, str) else than.name,
        "from_tokens_per_day": central.first,
        "low": low,
        "high": high,
        "always_from_tokens_per_day": central.ever,
        "requests_per_day": None if central.first is None else central.first / replica.tokens,
        "replicas": there,
        "utilisation_of_fullest_hour": central.first / there / peak if there and central.first else None,
    }


def _print(found: Mapping[str, Any], replica: Replica, offers: Sequence[Api]) -> None:
    from analysis.agreement import print_table

    head = ["cheaper", "than", "from Mtok/day", "interval", "always from", "requests/day", "replicas", "their use [%]"]
    rows = [_cells(row) for row in found["break_even"]]
    low, mean, high = (each / TOKENS_PER_MTOK for each in replica.tokens_per_day)
    served = f"{replica.pool.xpus_per_replica} x {replica.pool.xpu.id} serves {replica.pool.model.id}"
    print(f"A replica of {served}: {mean:.4g} Mtok/day in + out ({low:.4g} to {high:.4g} by seed)")
    print_table(head, rows, 2)
    prices = ", ".join(f"{name} {usd:.4g}" for name, usd in found["usd_per_mtok"].items())
    print(f"USD per Mtok in + out, of hardware one replica whose fullest hour is full: {prices}")
    for offer in offers:
        print(f"{offer.name}: {offer.basis}" + ("" if offer.serves == replica.pool.model.id else "; another model"))
    print(f"rent: {replica.rent_basis}\nown: {replica.own_basis}")


def _cells(row: Mapping[str, Any]) -> list[str]:
    def mtok(value: float | None, none: str) -> str:
        return none if value is None else "any" if value == 0.0 else f"{value / TOKENS_PER_MTOK:.3g}"

    use = row["utilisation_of_fullest_hour"]
    never = row["from_tokens_per_day"] is None
    return [
        row["what"],
        row["cheaper_than"],
        mtok(row["from_tokens_per_day"], "never"),
        f"{mtok(row['low'], 'never')} to {mtok(row['high'], 'never')}",
        "–" if never else mtok(row["always_from_tokens_per_day"], "never"),
        "–" if never else f"{row['requests_per_day']:,.0f}",
        "–" if row["replicas"] is None else str(row["replicas"]),
        "–" if use is None else f"{100.0 * use:.1f}",
    ]


def _write(
    found: Mapping[str, Any],
    replica: Replica,
    offers: Sequence[Api],
    profile: FloatArray,
    spread: float,
    out: Path,
) -> None:
    """Table, JSON and figure, in a folder that appears when it is whole."""
    from analysis.plots.breakeven import write
    from scenarios.store import whole_or_nothing, write_json

    kinds = [RENT, OWN] if np.ptp(profile) < 1e-12 else [RENT, PLAN, OWN]
    most = hardware(replica)[RENT].edges(profile)[-1]
    volume = np.geomspace(most * 1e-4, most * 0.1, POINTS)
    curves = {offer.name: (offer.usd_per_token * volume,) * 3 for offer in offers}
    for name in kinds:
        cases = [hardware(replica, which, factor)[name] for which, factor in
                 ((1, 1.0), *((which, 1.0 + sign * spread) for which, sign in _CORNERS))]  # fmt: skip
        central, dear, cheap = (each.usd_per_day(volume, profile) for each in cases)
        curves[name] = (central, cheap, dear)
    marks = [row["from_tokens_per_day"] for row in found["break_even"] if row["from_tokens_per_day"]]
    with whole_or_nothing(out) as folder:
        write_json(folder / "breakeven.json", dict(found))
        with (folder / "breakeven.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(found["break_even"][0]))
            writer.writeheader()
            writer.writerows(found["break_even"])
        write(folder, volume, curves, marks)


if __name__ == "__main__":
    sys.exit(cli.main(["breakeven", *sys.argv[1:]]))
