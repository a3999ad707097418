"""Command line to configurations: runs Hydra over the packaged `conf` and a user's own folder, and owns its errors."""

from __future__ import annotations

import copy
import os
import re
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scenarios.schema import nearest, one_line, unknown_key
from sim.errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONFIG_NAME = "config"
#: Set by this program: the first five keep Hydra from writing, the last would add a folder that nobody has checked.
_OWN_KEYS = (
    *("hydra.mode", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.run.dir", "hydra.output_subdir"),
    "hydra.searchpath",
)
#: Groups that are entries to name within a fleet, not choices of a scenario: where each is named.
_PARTS = {
    "model": "fleet.sites.SITE.pools.POOL.model=ID, or fleet=single fleet.model=ID",
    "xpu": "fleet.sites.SITE.pools.POOL.xpu=ID, or fleet=single fleet.xpu=ID",
    "host": "fleet.sites.SITE.pools.POOL.host=ID, or fleet=single fleet.host=ID",
    "cost": "fleet.sites.SITE.pools.POOL.cost=rent, or fleet=single fleet.cost=rent",
    "grid": "fleet.sites.SITE.grid=ID, or fleet=single fleet.grid=ID",
    "link": "fleet.links.LINK.type=ID",
    "api": "+fleet.sites.SITE.pools.POOL={api: ID}, or fleet=hybrid_api",
}
#: Keys that hold one word or a mapping: what can stand there.
_FORMS = {
    "grid": "an id, a number, or {path, zone, basis, start_utc, wrap}",
    "pue": "a number, {full_load, fixed_share}, {hours, months, zone} or {path, column}; see docs/accounting.md",
    "water": "null, an id, or {on_site_l_per_kwh: 0.3, off_site_l_per_kwh: 2}",
    "ttft": "null, {median_s: 0.4, sigma: 0.5}, or {_target_: ...}",
    "tokens_per_s": "null, a number, or {median: 100, sigma: 0.25}",
    "market": "null, or {contract_share: 0.4, contract_g_per_kwh: 11, residual_g_per_kwh: 450}",
    "solar": "null, or {peak_kw: 2, latitude: 37, longitude: -122, ...}; see docs/accounting.md",
    "battery": "null, or {kwh: 4, kw: 1, policy: carbon_aware, ...}; see docs/accounting.md",
    "ppa": "null, or {peak_kw: 2, hours: [24 shares], matching: hourly, g_per_kwh: 11, ...}; see docs/accounting.md",
    "plan": "null, {hours: [24 numbers], zone: UTC}, {outstanding_per_replica: 8, ...}, or [[from_s, replicas], ...]",
    "power_budget": "null, a number of kW, or {kw: 0.5, plus_solar: true} or {hours: [24 values]}",
    "host": "an id, null, or {type: ID, power_w: 90, ...}",
    "cost": "rent, reserved, spot, owned, null, or {type: owned, purchase_usd_per_xpu: 3000, ...}",
    "tenants": "null, or {count: 4, popularity: zipf, ...}; see docs/workloads.md",
    "priorities": "null, or as docs/workloads.md says",
    "deadlines": "null, or as docs/workloads.md says",
    "adapters": "null, or {count: 8, ...}; see docs/workloads.md",
    "images": "null, or as docs/workloads.md says",
    "privacy": "null, or {share: 0.3}",
    "reasoning": "null, or {tokens: 500, share: 1.0, added: true}",
    "prefix": "null, or {tokens: 512, groups: 4, ...}; see docs/workloads.md",
    "embodied": "act, llmcarbon, published, null, or {method: given, kg: 120, boundary: board}",
    "embodied_shares": "null, or {rack: {kg: 60, boundary: rack}, network: null}",
}
_NO_HYDRA = "no settings of Hydra itself; give hydra.* on the command line"


class Job:
    """One composed configuration to run.

    Attributes:
        overrides: what the command line changed, as given; in a sweep, this run's values.
        choices: chosen option by configuration group, such as ``{"router": "spillover"}``.
        number: position in a sweep, or None for a single run.
    """

    def __init__(self, cfg: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode
        from omegaconf import OmegaConf

        own = HydraConfig.get()
        self._cfg = cfg
        # Unresolved: an override is a text, and what it refers to need not exist.
        overrides: Any = OmegaConf.to_container(own.overrides.task, resolve=False)
        self.overrides: tuple[str, ...] = tuple(overrides)
        self.choices = {group: name for group, name in own.runtime.choices.items() if "hydra/" not in group and name}
        self.number = int(own.job.num) if own.mode == RunMode.MULTIRUN else None

    def resolve(self, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The configuration as plain values, every interpolation replaced.

        Args:
            changes: further values by dotted key, set before interpolations are replaced.

        Raises:
            InputError: an interpolation leads nowhere, or a key that must be given (``???``) is not.
        """
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        cfg = copy.deepcopy(self._cfg) if changes else self._cfg
        for key, value in (changes or {}).items():
            OmegaConf.update(cfg, key, value, force_add=True)
        try:
            plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raw = OmegaConf.to_container(cfg, resolve=False)
            raise _unresolved(error, raw) from error
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}


def compose(arguments: Namespace, task: Callable[[Job], None]) -> None:
    """Compose what the command line asks for and call `task` with it: once, or once for every point of a sweep.

    Args:
        arguments: `overrides`, `multirun`, `config_dir`, `cfg`, `resolve` and `package` of the command line.
        task: the program. It deals with its own `InputError`s: one that escapes ends a sweep.

    Raises:
        InputError: Hydra cannot make a configuration of it.
    """
    if arguments.multirun or arguments.cfg or any(map(_is_hydras, arguments.overrides)):
        _hydra_main(arguments, task)
    else:
        task(composed(arguments.overrides, arguments.config_dir))


def composed(overrides: Sequence[str], config_dir: Path | None = None) -> Job:
    """The one configuration that overrides compose.

    Raises:
        InputError: Hydra cannot make a configuration of it, or the user's folder is not one that it may read.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    if config_dir is not None:  # goes before the package's own folder, which only Hydra's program can arrange
        jobs: list[Job] = []
        _hydra_main(Namespace(overrides=overrides, config_dir=config_dir, multirun=False, cfg=None), jobs.append)
        return jobs[0]
    check_overrides(overrides)
    try:
        with hydra.initialize_config_module("conf", version_base="1.3"):
            cfg = hydra.compose(CONFIG_NAME, list(overrides), return_hydra_config=True)
    except Exception as error:
        raise _explain(error, overrides) from error
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return Job(cfg)


def _is_hydras(override: str) -> bool:
    """Whether an override configures Hydra itself."""
    return re.match(r"[+~]*hydra\b", override) is not None


def _hydra_main(arguments: Namespace, task: Callable[[Job], None]) -> None:
    """Let Hydra's own program compose, sweep or print, and call the task; it composes each configuration twice."""
    import hydra

    failed: list[Exception] = []

    def run(cfg: DictConfig) -> None:
        try:
            task(Job(cfg))
        except Exception as error:
            failed.append(error)
            raise

    check_overrides(arguments.overrides)
    if arguments.config_dir is not None:
        check_config_dir(arguments.config_dir)
    with tempfile.TemporaryDirectory(prefix="hybridfleet-") as scratch, _hydra_arguments(arguments, scratch):
        try:
            hydra.main(version_base="1.3", config_path="pkg://conf", config_name=CONFIG_NAME)(run)()
        except Exception as error:
            # What did not come out of the program is about the composition: Hydra raises any class, ValueError too.
            if error in failed:
                raise
            raise _explain(error, arguments.overrides) from error


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse overrides of the keys of Hydra that this program sets itself, and of what stands within a fleet."""
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key in _OWN_KEYS:
            raise InputError(key, value, "not to be set; see out=DIR, --multirun and --config-dir")
        if key in _PARTS:
            raise InputError(key, value, f"no such key; it stands within the fleet: {_PARTS[key]}")


def check_config_dir(folder: Path) -> None:
    """Refuse a user's folder that is missing, does not parse, or configures Hydra itself.

    Hydra loads callbacks, launchers and log handlers by name before the program can look at the configuration, so a
    downloaded folder must not set them; on the command line they are the user's own.
    """
    import yaml

    if not folder.is_dir():
        raise InputError("--config-dir", str(folder), "a folder that exists")
    for path in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        try:
            content = path.read_text(encoding="utf-8")
            documents = list(yaml.safe_load_all(content))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError("--config-dir", str(path), f"a YAML file that parses ({one_line(error)})") from error
        headers = [line for line in content.splitlines() if re.match(r"\s*#\s*@", line)]
        for words in (*path.relative_to(folder).with_suffix("").parts, *headers, *_steering(documents)):
            if re.search(r"\bhydra\b", words):
                raise InputError("--config-dir", str(path), f"{_NO_HYDRA} (found {words.strip()!r})")


def _steering(node: object, everything: bool = False) -> Iterator[str]:
    """Yield the texts of a parsed file that can steer Hydra: keys everywhere, values too within a defaults list."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield str(key)
            yield from _steering(value, everything or key == "defaults")
    elif isinstance(node, list):
        for value in node:
            yield from _steering(value, everything)
    elif everything:
        yield str(node)


@contextmanager
def _hydra_arguments(arguments: Namespace, scratch: str) -> Iterator[None]:
    """Hydra reads the process's arguments, and raises its errors only if the environment asks for them whole."""
    argv = [sys.argv[0], *arguments.overrides]
    if arguments.multirun:
        # Its sweeper writes a multirun.yaml into this folder before anything is checked; ours are made when whole.
        argv += [f"hydra.sweep.dir='{scratch}'", "hydra.sweep.subdir=.", "--multirun"]
    if arguments.config_dir:
        argv += ["--config-dir", str(arguments.config_dir)]
    if arguments.cfg:
        argv += ["--cfg", arguments.cfg, *(["--resolve"] if arguments.resolve else [])]
        argv += ["--package", arguments.package] if arguments.package else []
    argv_before, environment_before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = argv, "1"
    try:
        yield
    finally:
        sys.argv = argv_before
        if environment_before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = environment_before


def _explain(error: Exception, overrides: Sequence[str]) -> InputError:
    """Hydra's error as one of ours, with key, value and what would be accepted as far as Hydra tells them."""
    from hydra.errors import MissingConfigException, OverrideParseException

    message = one_line(error).replace("See https://hydra.cc/docs/1.2/advanced/override_grammar/basic for details", "")
    if isinstance(error, OverrideParseException):
        return InputError("override", error.override, f"KEY=VALUE, +KEY=VALUE or ~KEY ({message.strip()})")
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = list(error.options or ())
        return InputError(
            group or "config", name, nearest(name, options) + (" | ".join(options) or "an option that exists")
        )
    if ambiguous := re.match(r"Ambiguous value for argument '([^=]*)=(.*?)'", message):
        accepted = "one value; [a,b] for a list, quotes for a text, --multirun to sweep over them"
        return InputError(ambiguous[1], ambiguous[2], accepted)
    cause = error.__cause__
    full_key = getattr(cause, "full_key", None)
    if not full_key:
        return InputError("overrides", list(overrides), f"what Hydra can compose ({message})")
    value = _given(str(full_key), overrides)
    if "is not in struct" in str(cause):
        return _no_such_key(str(full_key), value, getattr(cause, "parent_node", None), overrides)
    return InputError(str(full_key), value, str(cause).splitlines()[0])


def _no_such_key(full_key: str, value: str | None, parent: Any, overrides: Sequence[str]) -> InputError:
    """An override of a key that its `parent` node does not have."""
    above, _, name = full_key.rpartition(".")
    known = [str(key) for key in parent or () if key != "hydra"]
    if full_key in ("fleet.sites", "fleet.links"):
        given = (override.lstrip("+~").partition("=")[0] for override in overrides)
        key = next((key for key in given if key.startswith(f"{full_key}.")), full_key)
        last = key.rpartition(".")[2]
        instead = f", such as fleet.{last}={value}" if last in known else f": {', '.join(known)}"
        return InputError(key, value, f"no such key; this fleet has no {name}, its keys stand at the top{instead}")
    form = _FORMS.get(above.rpartition(".")[2])
    if form and not known:
        return InputError(full_key, value, f"no such key; {above} is given whole: {form}")
    return InputError(full_key, value, unknown_key(name, known))


def _unresolved(error: Exception, raw: object) -> InputError:
    """OmegaConf's error on resolving, as one of ours; `raw` is the configuration before."""
    key = str(getattr(error, "full_key", None) or "")
    value = raw
    for part in re.findall(r"[^.\[\]]+", key):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit():
            value = value[int(part)]
    if value == "???":
        return InputError(key, value, f"a value of yours: {key}=...")
    return InputError(key, value, f"an interpolation that resolves ({str(error).splitlines()[0]})")


def _given(full_key: str, overrides: Sequence[str]) -> str | None:
    """The value that an override gave to a key or to one below it."""
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key == full_key or key.startswith(f"{full_key}."):
            return value
    return None
