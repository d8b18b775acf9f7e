"""What `tests.converted_models` makes, known without TensorFlow."""

FORMS = ("float", "half", "dynamic", "int8", "int16")
NETWORKS = (
    *("unet", "mobile", "activations", "resized", "dilated", "grouped", "split", "wide"),
    *("sequence", "attention", "gelu", "arithmetic", "chosen", "normalised", "embedded"),
)
