"""Talking to the API server: connection, kubeconfig, watches and streams."""
