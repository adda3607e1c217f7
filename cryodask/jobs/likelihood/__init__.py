"""The likelihood of structures given particle images."""
