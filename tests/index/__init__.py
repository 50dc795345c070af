"""The static index: what it accepts, what it writes, and what is left when it is killed."""
