"""Opening a run, the stages of a recipe's run, and specialising a trained supernet."""
