"""What only a builder can do is the builder's; the COPYs that follow it are made here."""
