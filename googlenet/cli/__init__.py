"""The command line: flags to a config, help, the version."""
