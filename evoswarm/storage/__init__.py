"""Run directories and pools at URLs: s3://, gs://, and whatever fsspec knows. Knows files, not what they mean."""
