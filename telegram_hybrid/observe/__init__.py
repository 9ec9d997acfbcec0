"""What others see of us: traces, so far."""
