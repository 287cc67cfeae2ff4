"""The model's life outside serving: so far, how a version's source becomes files on this machine."""
