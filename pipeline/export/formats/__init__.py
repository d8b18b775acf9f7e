"""One file per export format: an Exporter named like the file (`pipeline.export.api`)."""
