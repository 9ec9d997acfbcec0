"""The cache under everything at once: who takes part, and what happens to them."""
