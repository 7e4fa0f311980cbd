"""The masked forward function: a call's arguments, where a mask enters, and what it leads to."""
