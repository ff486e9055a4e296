"""How pods get a new image: one module a strategy."""
