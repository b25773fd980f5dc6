"""What a layer is on disk: its directories, its chain, its thin parents.

Knows no protocol: neither Docker's nor containerd's.
"""
