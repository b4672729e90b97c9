"""Who answers a request: champion, challenger, or the champion because the challenger did not."""
