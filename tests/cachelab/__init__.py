"""What the cache tests share: a model of Redis, an explorer of interleavings, rows to read."""
