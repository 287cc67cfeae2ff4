"""From desired to observed state: load, probe, warm up, publish the route, drain, unload."""
