"""Which loaded version answers a request: an immutable table, swapped as a whole."""
