"""The one exception a user is meant to read."""


class UserError(Exception):
    """Input that cannot be used: the message is one sentence naming the place, what was expected, what was found
    and the remedy. The command line prints it and exits with code 2; nothing prints a traceback for it."""


class NotFiniteError(UserError):
    """Training met a number that is not finite. The same run would meet it again."""


class BusyError(UserError):
    """What is asked for is being made by another process right now."""


class LockedError(Exception):
    """Another process holds the lock."""


class CallbackError(UserError):
    """A user's callback failed; its own exception is the cause. The checkpoint that was there is untouched."""
