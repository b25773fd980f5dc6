"""Looking after running clients: the talk socket, status and metrics, and checks before mounting.

To add a command of the talk socket, see ``talk``; a value of the status, ``status``; a metric for Prometheus,
``metrics``; a check for ``config check``, ``checkup``.
"""
