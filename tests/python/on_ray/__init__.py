"""Tests that take Ray."""
