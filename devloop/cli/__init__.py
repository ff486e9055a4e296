"""click commands, one file a command: parse and call, nothing else."""
