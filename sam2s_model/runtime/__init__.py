"""Who executes the model's four stages."""
