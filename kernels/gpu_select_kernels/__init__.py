"""Fused operations of the router: each a torch reference and a Triton kernel behind one function."""

__all__: list[str] = []
