"""Front ends: what turns a transport's requests into Calls and Replies into its answers."""
