"""Pictures in folders and archives: listed, decoded when they are asked for, kept as bytes."""
