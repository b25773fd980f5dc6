"""Small HTTP servers: what all of ours have in common.

Must not know: what they serve.
"""
