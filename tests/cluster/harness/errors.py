"""What can go wrong with a cluster, as exceptions."""


class ClusterError(Exception):
    """A cluster was not built, did not start, or did not do what it was told."""


class ClusterUnavailableError(ClusterError):
    """This machine cannot build or run a cluster; the message says why, in one line."""


class CommandFailedError(ClusterError):
    """A command ended with a status other than 0; the message has what it said."""
