"""The chapters of a report, a file a topic: its data, its figures, its tables, sentences and gaps.

A chapter is a function `chapter(run) -> Chapter`; `analysis.chapters.parts` says what one holds.
"""
