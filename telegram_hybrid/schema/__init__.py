"""What outlives a process and other programs rely on: tables, keys, queues, envelopes."""
