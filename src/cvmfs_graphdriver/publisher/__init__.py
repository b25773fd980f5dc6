"""Writing CernVM-FS repositories: storage, ingestion of trees, catalogs, signing.

To publish a directory, begin at ``transaction``: ``Transaction.ingest``, then ``publish``. ``storage/`` is
where objects go, ``ingest/`` turns entries into objects and catalogs, ``care/`` checks and garbage-collects
what is published. Knows neither Docker nor containerd.
"""
