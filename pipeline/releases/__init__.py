"""What is shipped: releases, their records and lock, and the migrations that go with them.

Knows no engine and asks nothing by itself.
"""
