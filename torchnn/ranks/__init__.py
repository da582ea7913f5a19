"""The processes of one job: which of them this is, who of them has died, and who says so."""
