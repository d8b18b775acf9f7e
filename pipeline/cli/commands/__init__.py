"""One file per subcommand: it defines `command`, and imports what is heavy inside it."""
