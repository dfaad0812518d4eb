"""Databases: engines, pools, tables, migrations, transactions and the drivers' errors.

Knows how a transaction begins, ends and is tried again; never what it is for.
"""
