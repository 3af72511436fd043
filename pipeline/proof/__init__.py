"""The proof: synthetic traffic in a process of its own, while a deploy changes what answers it.

`traffic.Traffic` starts and reads it, `verdict.judge` says what its result means, `smoke.smoke` asks everything once,
`writes.clean_up` removes what a killed deploy left behind. What is sent is a table of the user (`requests`).
Knows a service by its address and its table of requests, and nothing of who ships it.
"""
