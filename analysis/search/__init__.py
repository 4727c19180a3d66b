"""The search and the neighbourhood: what they found, as tables, figures and the page's sections."""
