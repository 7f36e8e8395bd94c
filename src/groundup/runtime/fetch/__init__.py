"""Files from elsewhere, into the cache: https, the package index, S3, the Hugging Face Hub.
Bounded, resumed, verified.
"""
