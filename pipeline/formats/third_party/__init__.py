"""Libraries that convert or quantise what our graph cannot say, each in an environment of its own.

Their dependencies conflict with ours and with each other's, they take gigabytes, and a file may
crash them: each is installed on demand into the user's cache, and run there in a process with
limits of time and memory.
"""
