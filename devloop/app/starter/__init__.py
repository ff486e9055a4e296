"""What a project without a devloop.yaml is made of, and the file that would say so."""
