"""The recipe of a run, its reader, and the plugins that it names."""
