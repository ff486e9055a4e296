"""Where a service's Kubernetes objects come from."""
