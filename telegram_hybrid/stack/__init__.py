"""Stack: the deployment of the data layer as files, written with fresh secrets and checked."""

from __future__ import annotations

from telegram_hybrid.stack.checking import Checked, Report, check
from telegram_hybrid.stack.plan import PORTS, Plan
from telegram_hybrid.stack.problem import Problem
from telegram_hybrid.stack.writing import FILES, Outcome, Written, write

__all__ = [
    "FILES",
    "PORTS",
    "Checked",
    "Outcome",
    "Plan",
    "Problem",
    "Report",
    "Written",
    "check",
    "write",
]
