"""One file per schema of the store, in alembic's form: what makes it of the schema before.

A file here is never changed once it has been released: what it meets was written by the version
before it, not by today's code. So it imports nothing of ours, and names tables by itself.
`upgrade` is given alembic's operations, since their usual proxy is one for all threads.
"""
