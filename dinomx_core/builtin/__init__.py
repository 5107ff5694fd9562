"""Components that the core ships, declared through the same hooks as any plugin's."""
