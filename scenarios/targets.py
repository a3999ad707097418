"""Plug-ins: makes objects from configuration nodes that name a class as `_target_`, and refuses every other target.

A downloaded scenario must not be able to run code. A target is a class that was defined in this project or in a
package that the user listed as a plug-in; functions, imported names (``sim.x.os.system``) and Hydra's other special
keys are refused, before anything is built.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Mapping
from typing import Any

from scenarios.schema import nearest
from sim.errors import InputError

PROJECT_PACKAGES = ("sim", "scenarios", "analysis")
TARGET = "_target_"
ABOUT = "about"  #: notes and sources in a group's file; for readers, not for the class


def check_targets(node: object, key: str, plugins: Collection[str] = ()) -> None:
    """Walk a resolved configuration and refuse any target outside the project and `plugins`. Imports nothing.

    Raises:
        InputError: a target's package is not allowed, or a key is one of Hydra's special ones.
    """
    if isinstance(node, Mapping):
        for name, value in node.items():
            path = f"{key}.{name}" if key else str(name)
            if name == TARGET:
                _check_package(path, value, plugins)
            elif isinstance(name, str) and name.startswith("_") and name.endswith("_"):
                raise InputError(path, value, f"no such key; the only special key is {TARGET}")
            check_targets(value, path, plugins)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            check_targets(value, f"{key}[{index}]", plugins)


def instantiate(node: object, key: str, plugins: Collection[str] = (), **injected: Any) -> Any:
    """Return the object that a configuration node describes; nested targets are made first.

    Args:
        node: a plain, resolved value. A mapping with `_target_` becomes an object, other mappings and lists are kept.
        key: dotted name of the node, for errors.
        plugins: packages that the user trusts besides the project.
        injected: further arguments of the outermost class, where the configuration does not set them.
    """
    if isinstance(node, list | tuple):
        return [instantiate(value, f"{key}[{index}]", plugins) for index, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    arguments = {
        str(name): instantiate(value, f"{key}.{name}", plugins)
        for name, value in node.items()
        if name not in (TARGET, ABOUT)
    }
    if TARGET not in node:
        return arguments
    cls = locate(f"{key}.{TARGET}", node[TARGET], plugins)
    arguments = {**injected, **arguments}
    _check_arguments(cls, key, arguments)
    try:
        return cls(**arguments)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(key, arguments, f"arguments that {node[TARGET]} takes ({error})") from error


def locate(key: str, target: object, plugins: Collection[str] = ()) -> type:
    """Return the class that `target` names.

    Raises:
        InputError: it is not allowed, does not exist, or is not a class of the package it is named in.
    """
    name = _check_package(key, target, plugins)
    module_name, _, class_name = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        package = name.partition(".")[0]
        missing = package in plugins and getattr(error, "name", None) == package
        hint = f"; {package} must be installed, or the folder it is in be on PYTHONPATH" if missing else ""
        raise InputError(key, target, f"the path of a class that can be imported ({error}){hint}") from None
    if not isinstance(found, type) or found.__module__.split(".")[0] not in (*PROJECT_PACKAGES, *plugins):
        raise InputError(key, target, "a class that is defined there, not a function or an imported name")
    return found


def accepts(cls: type, name: str) -> bool:
    """Whether a class takes an argument of that name."""
    parameters = inspect.signature(cls).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _check_package(key: str, target: object, plugins: Collection[str]) -> str:
    allowed = (*PROJECT_PACKAGES, *plugins)
    parts = target.split(".") if isinstance(target, str) else []
    if len(parts) < 2 or parts[0] not in allowed or not all(part.isidentifier() for part in parts):
        raise InputError(key, target, f"a class in {' | '.join(allowed)}, or in a package named by plugins=[...]")
    return ".".join(parts)


def _check_arguments(cls: type, key: str, arguments: Mapping[str, object]) -> None:
    parameters = inspect.signature(cls).parameters
    for name, value in arguments.items():
        if not accepts(cls, name):
            keys = ", ".join(parameters)
            raise InputError(f"{key}.{name}", value, f"no such key; {nearest(name, parameters)}keys here: {keys}")
    for name, parameter in parameters.items():
        optional = (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and name not in arguments and parameter.kind not in optional:
            raise InputError(f"{key}.{name}", None, f"a value; {cls.__name__} needs it")
