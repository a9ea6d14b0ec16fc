"""Memory of the running process in MiB."""

import resource


def _status(field):
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


def peak_mib():
    """The process's own high-water mark; ru_maxrss of a child starts at what its parent had."""
    own = _status("VmHWM")
    return own if own is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_mib():
    now = _status("VmRSS")
    return now if now is not None else peak_mib()
