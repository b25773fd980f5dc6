"""What administrators ask of the snapshotter: why a layer is lazy or not, its status, metrics, what is wrong.

Nothing here changes anything, except that ``meters`` count.
"""
