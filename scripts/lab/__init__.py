"""Stand-ins for real boards and phones, each started by one command; the tests use them too."""
