"""What is shipped: releases, their records and lock, and the migrations that go with them.

Knows no engine, and queries none by itself.
"""
