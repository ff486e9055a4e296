"""What several adapters need and nobody owns."""
