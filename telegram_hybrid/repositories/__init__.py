"""Messages, channels and the unit of work: what users call."""
