"""Files that survive a crash of the machine."""
