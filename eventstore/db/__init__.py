"""Databases: engines, pools, tables, migrations, transactions and the drivers' errors.

Knows how a transaction begins, ends and is repeated, and not what it is for.
"""
