"""One module for each bar: ``NUMBER``, ``TITLE``, and ``measure(stage)``, which gives its report. Each leaves the
reaper off and the settings as they were; what tables it made are removed after it.
"""
