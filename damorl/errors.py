"""The one exception a user is meant to read."""


class UserError(Exception):
    """Input that cannot be used: the message is one sentence naming the place, what was expected, what was found
    and the remedy. The command line prints it and exits with code 2; nothing prints a traceback for it."""
