"""The chapters of a report, a file a topic: its data, its figures and what its tables hold.

`chapter(run)` returns the values of the template of the same name, which has the words.
"""
