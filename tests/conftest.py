"""Where tests run, fixtures are; the process that only hands tests out imports none of it."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures, which takes seconds, in processes that run tests."""
    hands_out = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if not hands_out:
        config.pluginmanager.import_plugin("common_fixtures")
