"""Where a network runs: one TOML file per device, built in or the user's own."""
