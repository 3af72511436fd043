"""The proof: synthetic traffic in a process of its own, while a deploy changes what answers it.

`traffic.Traffic` starts and reads it, `verdict.judge` says what its result means, `smoke.smoke` sends every request
once, `writes.clean_up` removes what a killed deploy left behind. The user's table of requests says what to send.
The proof knows a service by its address and that table, and nothing about who ships it; `report.Report` is what all
of it came to, for whoever shows or keeps that.
"""
