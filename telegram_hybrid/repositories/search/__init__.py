"""Search: what a text means, where a page begins, and the statements that find messages."""
