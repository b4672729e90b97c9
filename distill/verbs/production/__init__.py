"""The registry that a configuration means, and the service that is put together of it."""
