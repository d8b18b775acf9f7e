"""What a network is: specs, their one lowering to ops, costs, published nets, torch modules."""
