"""The command line, ``captum-aml``."""
