"""One file per task: what counts as good on a data set (`pipeline.data.task`)."""
