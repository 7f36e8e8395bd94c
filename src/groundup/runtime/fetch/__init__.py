"""Files from https, the package index, S3 and the Hugging Face Hub: bounded, resumed, verified."""
