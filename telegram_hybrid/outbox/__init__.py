"""What a transaction leaves behind for others: event rows, shards and leases, dead letters."""
