"""Factories of connections; the lowest place where a driver is imported.

`telegram_hybrid.connect()` is `telegram_hybrid.hybrid.connect`.
"""

import sys

from telegram_hybrid._rooms import Room

sys.modules[__name__].__class__ = Room
