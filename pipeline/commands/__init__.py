"""What each nox session runs: a parser, a function, what it prints.

May use everything; nothing imports it but `__main__`.
"""
