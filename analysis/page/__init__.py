"""The report's page: its layout, its markup and the tables of a whole run."""
