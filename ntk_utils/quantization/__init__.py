"""Optimisation with few bits: encoded messages, and the methods of the nodes that send them."""
