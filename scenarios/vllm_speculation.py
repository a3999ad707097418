"""What a vLLM deployment's record says of speculative decoding, as the settings of an engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from scenarios.schema import Check, integer, number, text
from sim.errors import InputError
from sim.hardware.speculation import acceptance_of

T = TypeVar("T")

_KEY = "speculative_config"
_ACCEPTED = "ngram | draft_model | mtp, or that of a model such as deepseek_mtp: the replay has no other"
#: Keys under which vLLM's serving benchmark saves what it saw: tokens a step, and percent of drafted tokens.
_LENGTH, _RATE = "spec_decode_acceptance_length", "spec_decode_acceptance_rate"


def read_speculation(config: object, stated: Callable[[str], object], where: str) -> tuple[dict[str, Any], str | None]:
    """Read a `speculative_config`.

    Args:
        config: its content, a mapping or, as on the command line, JSON.
        stated: looks another setting of the record up; None where it is absent.
        where: the file, for errors.

    Returns:
        Keys of an engine, and the Hugging Face name of the model that drafts, or None. The acceptance rate is among
        them if the record has it.

    Raises:
        InputError: tokens are drafted in a way that the simulated engine does not have, or something is missing.
    """
    if isinstance(config, str):
        try:
            config = json.loads(config)
        except json.JSONDecodeError:
            raise InputError(_KEY, config, "a mapping of settings, or its JSON", where) from None
    if not isinstance(config, Mapping):
        raise InputError(_KEY, config, "a mapping of settings", where)
    method = _method(config, where)
    drafts = _checked(f"{_KEY}.num_speculative_tokens", config.get("num_speculative_tokens"), integer(1), where)
    engine: dict[str, Any] = {"speculative_method": method, "speculative_tokens": drafts}
    tokens = _tokens_a_step(drafts, stated, where)
    if tokens is not None:
        engine["acceptance_rate"] = acceptance_of(tokens, drafts)
    draft = None
    if method == "draft_model":
        draft = _checked(f"{_KEY}.model", config.get("model"), text, where)
    return engine, draft


def _method(config: Mapping[str, Any], where: str) -> str:
    """Who drafts; vLLM takes a model without a method for a draft model."""
    method, model = config.get("method"), config.get("model")
    if method is None:
        method = "draft_model" if model not in (None, "ngram", "[ngram]") else model
    name = str(method).strip("[]")
    if name not in ("ngram", "draft_model") and not name.endswith("mtp"):
        raise InputError(f"{_KEY}.method", method, _ACCEPTED, where)
    return "mtp" if name.endswith("mtp") else name


def _tokens_a_step(drafts: int, stated: Callable[[str], object], where: str) -> float | None:
    """Mean tokens of a step that the record states; None if it does not."""
    length, rate = stated(_LENGTH), stated(_RATE)
    if length is not None:
        accepted = f"1 to {drafts + 1} tokens a step"
        return _checked(_LENGTH, length, number(accepted, low=1.0, high=drafts + 1.0), where)
    if rate is not None:
        return (
            1.0 + drafts * _checked(_RATE, rate, number("a percentage, 0 to 100", low=0.0, high=100.0), where) / 100.0
        )
    return None


def _checked(key: str, value: object, check: Check[T], where: str) -> T:
    try:
        return check(key, value)
    except InputError as error:
        raise InputError(error.key, error.value, error.accepted, where) from None
