"""Forecasts of carbon intensity: what a policy may know of a grid. The realised signal is for the books alone.

A grid's intensity of an hour is known once the hour has passed and its operator has published it: `lag_s` later.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from sim.accounting.signal import Signal
from sim.errors import InputError, number, provider
from sim.rng import Streams
from sim.units import SECONDS_PER_HOUR

_BLOCK_HOURS = 256  # errors drawn at once
_LAG = "a time >= 0 s"


class Forecast(Protocol):
    """A forecast for one site."""

    def at(self, now_s: float, t_s: float) -> float:
        """Intensity at `t_s`, as forecast at `now_s` <= `t_s` [g CO2e/kWh]; NaN where it is unknown."""
        ...


class ForecastModel(Protocol):
    """How forecasts are made."""

    def of(self, site: str, signal: Signal, streams: Streams) -> Forecast:
        """The forecast for a site whose realised intensity is `signal`."""
        ...


class Persistence:
    """All stays as it was last published.

    Args:
        lag_s: age of the latest published value [s].
    """

    def __init__(self, lag_s: float = SECONDS_PER_HOUR) -> None:
        self._lag_s = number("forecast.lag_s", lag_s, _LAG, low=0.0)

    def of(self, site: str, signal: Signal, streams: Streams) -> Forecast:
        """See `ForecastModel.of`."""
        lag_s = self._lag_s
        # before the first publication of a run, what held when it began
        return _Known(lambda now_s, t_s: signal.at(max(0.0, now_s - lag_s)))


class Noisy:
    """What will be, times a log-normal error of mean 1 whose spread grows with the root of the lead time.

    An hour's error has one sign and only shrinks as the hour comes nearer; hours and sites err independently.

    Args:
        sigma: standard deviation of the error's logarithm one hour ahead.
        lag_s: lead time, from the latest published value, of a forecast for now [s].
    """

    def __init__(self, sigma: float = 0.1, lag_s: float = SECONDS_PER_HOUR) -> None:
        self._sigma = number("forecast.sigma", sigma, "a number >= 0 (of the logarithm, one hour ahead)", low=0.0)
        self._lag_s = number("forecast.lag_s", lag_s, _LAG, low=0.0)

    def of(self, site: str, signal: Signal, streams: Streams) -> Forecast:
        """See `ForecastModel.of`."""
        rng = streams.get(f"carbon forecast {site}")
        errors: list[float] = []

        def value(now_s: float, t_s: float) -> float:
            hour = int(t_s // SECONDS_PER_HOUR)
            while hour >= len(errors):
                errors.extend(rng.standard_normal(_BLOCK_HOURS).tolist())
            sigma = self._sigma * math.sqrt((t_s - now_s + self._lag_s) / SECONDS_PER_HOUR)
            return signal.at(t_s) * math.exp(sigma * errors[hour] - 0.5 * sigma * sigma)

        return _Known(value)


class Oracle:
    """What will be: a bound on what any forecast can do."""

    def of(self, site: str, signal: Signal, streams: Streams) -> Forecast:
        """See `ForecastModel.of`."""
        return _Known(lambda now_s, t_s: signal.at(t_s))


class _Known:
    """A forecast by a function; NaN where the data do not reach."""

    __slots__ = ("_value",)

    def __init__(self, value: Callable[[float, float], float]) -> None:
        self._value = value

    def at(self, now_s: float, t_s: float) -> float:
        """See `Forecast.at`."""
        try:
            return self._value(now_s, t_s)
        except InputError:  # hours beyond a file of data
            return math.nan


#: forecasts by name
FORECASTS: dict[str, Callable[[], ForecastModel]] = {"persistence": Persistence, "noisy": Noisy, "oracle": Oracle}


def forecast_model(key: str, value: object) -> ForecastModel:
    """Return the forecast that a name stands for, or one that was made already.

    Raises:
        InputError: it is neither.
    """
    if isinstance(value, str) and value in FORECASTS:
        return FORECASTS[value]()
    accepted = f"{' | '.join(FORECASTS)}, or a _target_ such as sim.accounting.forecast.Noisy"
    model: ForecastModel = provider(key, value, ["of"], accepted)  # type: ignore[assignment]
    return model
