"""From weights to files that may ship: exported, made smaller, promised, measured, packed."""
