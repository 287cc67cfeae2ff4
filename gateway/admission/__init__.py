"""What may not or cannot run is answered at once, before it is routed."""
