"""One module for each bar: ``NUMBER``, ``TITLE``, and ``measure(stage)``, which gives its report."""
