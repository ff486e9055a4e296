"""Finding the registry and talking to it (OCI distribution); nothing here builds or deploys."""
