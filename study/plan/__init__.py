"""What to train: the study's spec, its trials, the search by Optuna, and the ledger of it all.

It knows no Ray and trains nothing, so that a simulator can drive whole studies in the tests.
"""
