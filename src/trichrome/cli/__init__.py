"""The commands: thin. Each parses, calls the library, and prints; one file a command."""
