"""Real servers that the tests start themselves, beside the two that come from wheels."""
