"""The parts of tests/stress.py."""
