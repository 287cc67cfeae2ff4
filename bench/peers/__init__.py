"""The servers and engines that are measured, one file each."""
