"""The registry server: OCI distribution 1.1 over a file system or an S3-compatible store."""
