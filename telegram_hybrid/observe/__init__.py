"""What others see of us: traces, and metrics for Prometheus."""
