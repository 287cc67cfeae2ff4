"""What runs in processes of its own; nothing here imports the rest of the bench."""
