"""For the test suites of other projects: a pytest plugin with a `hybrid` fixture, and factories.

The plugin is active wherever telegram-hybrid is installed; `pip install
'telegram-hybrid[embedded]'` brings the servers that it starts.
"""

from telegram_hybrid.testing.factories import make_message, make_messages

__all__ = ["make_message", "make_messages"]
