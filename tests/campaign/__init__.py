"""The fault campaign: what it does, what it saw, and the judge over that."""
