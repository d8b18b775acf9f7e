"""Training on the host: one loop for proxy training and for training in full."""
