"""One folder a job, from parameters and files to a result dataset."""
