"""The user's own commands before and after the steps of a service (`hooks`)."""
