"""The command line: modes, flags, config overrides, help, exit codes."""
