"""The configuration of a repository: from files in /etc/cvmfs to typed settings.

To add a parameter: give it a line in ``parameters``, a field in ``settings`` (or ``operation``), and its
meaning in ``meaning``. ``search`` finds and evaluates the files, ``reader`` parses values, ``unknown``
reports misspelt parameters.
"""
