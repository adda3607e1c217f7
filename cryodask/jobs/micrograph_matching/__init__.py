"""Matching of micrographs: Leopard-EM's configuration, and what cryodask adds to it."""
