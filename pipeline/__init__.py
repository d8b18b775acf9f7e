"""The host pipeline: recipe, data, training, search, compression, export, store, report."""
