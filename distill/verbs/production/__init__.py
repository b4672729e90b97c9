"""The registry that a configuration means, the service put together of it, and what both know."""
