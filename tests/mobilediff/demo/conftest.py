"""Share the loaded tiny models among the tests of the app's work."""

import pytest

from mobilediff.demo.service.models import Models


@pytest.fixture(scope="session")
def models(checkpoints) -> Models:
    """All tiny models, loaded."""
    models = Models(checkpoints)
    assert len(models.all()) == len(models.names)
    return models
