"""Run directories and pools at URLs (s3://, gs://, everything that fsspec supports), as files of unknown content."""
