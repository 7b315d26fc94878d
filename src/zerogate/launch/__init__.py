"""Launchers, the watchdog, deadlines, locks, and the clean-up after a launch."""
