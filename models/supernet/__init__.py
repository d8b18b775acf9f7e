"""Networks that hold many networks: shared weights, of which each sub-network uses a part."""
