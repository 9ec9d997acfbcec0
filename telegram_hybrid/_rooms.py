"""Rooms that are also calls: `th.connect()` and `th.embedded()` are named like packages.

A function would vanish from `telegram_hybrid` as soon as the package of its name is imported,
because the import system binds that name to the module. So the module itself can be called.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

_CALLS = {
    "telegram_hybrid.connect": ("telegram_hybrid.hybrid", "connect"),
    "telegram_hybrid.embedded": ("telegram_hybrid.embedded.session", "open_embedded"),
}


class Room(ModuleType):
    """The class of such a package, set by `sys.modules[__name__].__class__ = Room` in it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function that shares this package's name."""
        module, function = _CALLS[self.__name__]
        return getattr(import_module(module), function)(*args, **kwargs)
