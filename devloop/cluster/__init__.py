"""The only package that talks to Kubernetes: guard, apply and patch, watch, rollout, diagnosis."""
