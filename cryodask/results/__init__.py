"""What an interactive user touches: the accessor, plots and the report."""
