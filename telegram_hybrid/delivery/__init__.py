"""Delivery: from the outbox to the broker, and from the broker into a handler's transaction."""
