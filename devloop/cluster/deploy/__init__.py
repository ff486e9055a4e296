"""Writing to the cluster: apply, patch, whose fields are whose, what was there before."""
