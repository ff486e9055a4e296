"""`devloop doctor`: the path of a save, hop by hop, with a throw-away project and namespace."""
