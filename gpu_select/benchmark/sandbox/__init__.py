"""Runs code that a model wrote, apart from everything else, and asks it what its assertions ask.

Two processes, both shut in (`confinement`): the *candidate* holds the answer's code, the *examiner* the assertions.
They talk by values (`codec`), so that the code sees the arguments of a call and nothing else: neither the expected
results nor what decides about them. The *launcher* starts and ends both; `finding` tries what this system can do.

What runs inside them imports nothing but Python's own library.
"""
