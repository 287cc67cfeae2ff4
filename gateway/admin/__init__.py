"""The admin service: what operators ask a running gateway, and tell it."""
